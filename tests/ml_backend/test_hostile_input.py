"""Two thousand broken, mutated and foreign requests: never a 5xx, never a leak, never a hang."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders_serving import bundle, encoded, pixels
from flask.testing import FlaskClient
from PIL import Image

from ml_backend.app import create_app
from ml_backend.errors import UnreadableImageError
from ml_backend.images import DecodeLimits, decode
from ml_backend.settings import read_settings

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns of damaged EXIF and goes on
MARK = b"SECRET-PATIENT-NAME"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    home = tmp_path_factory.mktemp("home")
    bundle(home)
    (home / "images").mkdir()
    (home / "images" / "a.png").write_bytes(encoded(pixels()))
    app = create_app(read_settings(home=home, max_bytes=400_000, max_pixels=1_000_000))
    yield app.test_client()
    app.extensions["dermloop"].close()


def seeds() -> list[bytes]:
    base = Image.fromarray(pixels(48, 36, ((8, 8, 20, 20),)))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encoded(base),
        encoded(base, "JPEG", exif=exif, comment=MARK),
        encoded(base, "JPEG", progressive=True),
        encoded(base.convert("CMYK"), "JPEG"),
        encoded(base.convert("P")),
        encoded(base.convert("LA")),
        encoded(Image.fromarray(np.asarray(base.convert("L"), dtype=np.uint16) << 8)),
    ]


def mutated(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.randint(1, 12)):
        at = chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randint(1, 40)]
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.randint(1, 40))
        else:
            data[at:] = b""
        if not data:
            break
    return bytes(data)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, data: bytes, *extra: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_mutated_pictures_end_in_an_answer_or_a_reason(client: FlaskClient) -> None:
    chance = random.Random(7)
    sources = seeds()
    statuses = set()
    for number in range(1500):
        content = mutated(sources[number % len(sources)], chance)
        began = time.monotonic()
        answer = client.post("/predict", data={"image": (io.BytesIO(content), "p.png")})
        assert time.monotonic() - began < 5
        assert answer.status_code in (200, 422), (number, answer.status_code, answer.text)
        assert MARK not in answer.data and b"Traceback" not in answer.data
        statuses.add(answer.status_code)
    assert statuses == {200, 422}


def test_arbitrary_bodies_end_in_4xx_or_an_answer(client: FlaskClient) -> None:
    chance = random.Random(11)
    paths = ["/predict", "/setup", "/webhook", "/job_status", "/versions", "/v1/analyze", "/v1/models", "/detect/x"]
    for _ in range(500):
        path, kind = chance.choice(paths), chance.randrange(3)
        sent: dict[str, Any] = {"json": value(chance, 4)}
        if kind == 1:
            sent = {"data": chance.randbytes(chance.randint(0, 200)), "content_type": "application/json"}
        elif kind == 2:
            sent = {"data": chance.randbytes(60), "content_type": "multipart/form-data; boundary=x"}
        answer = client.open(path, method=chance.choice(["GET", "POST", "PUT"]), **sent)
        assert answer.status_code < 500, (path, sent, answer.text)
        assert answer.is_json and b"Traceback" not in answer.data


@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook", "/job_status"])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"tasks":[],"action":"x","job":"\\ud800","schema":"a"}',
    ],
    ids=["lists without end", "objects without end", "half a character"],
)
def test_a_body_that_no_sender_means_is_malformed(client: FlaskClient, path: str, body: bytes) -> None:
    assert client.post(path, data=body, content_type="application/json").status_code in (400, 410)


def test_a_request_cannot_buy_hours_of_work(client: FlaskClient) -> None:
    size = {"original_width": 160, "original_height": 120}
    task = {"id": 1, "data": {"image": "/data/local-files/?d=images/a.png"}}
    box = {"type": "rectanglelabels", **size, "value": {"x": 1, "y": 1, "width": 10, "height": 10}}
    click = {"type": "keypointlabels", **size, "value": {"x": 1, "y": 1}}
    for drawn in ([box] * 300, [click] * 20):
        sent = {"tasks": [task], "params": {"context": {"result": drawn}}}
        assert "at most 256 regions and 16 points" in client.post("/predict", json=sent).json["error"]
    deep = "<View>" * 20_000 + "</View>" * 20_000
    assert "characters" in client.post("/setup", json={"project": "1", "schema": deep}).json["error"]


def value(chance: random.Random, depth: int) -> Any:
    keys = ["tasks", "data", "id", "image", "params", "context", "result", "value", "label_config", "schema", "project",
            "action", "job", "original_width", "original_height", "x", "y", "width", "height", "rotation"]  # fmt: skip
    plain = [None, True, -1, 0, 1e308, "", "/data/local-files/?d=images/a.png", "<View/>", "START", "\0", "1.1"]
    if depth == 0 or chance.random() < 0.3:
        return chance.choice(plain)
    if chance.random() < 0.4:
        return [value(chance, depth - 1) for _ in range(chance.randint(0, 3))]
    return {key: value(chance, depth - 1) for key in chance.sample(keys, chance.randint(1, 6))}


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    began = time.monotonic()
    for content in (png(60_000, 60_000, b""), png(200_000, 200_000, zlib.compress(b"\0" * 10_000))):
        with pytest.raises(UnreadableImageError, match="at most 80000000 pixels"):
            decode(content, "bomb")
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 40_000_000, 9))
    with pytest.raises(UnreadableImageError):
        decode(png(1, 1, zlib.compress(b"\0\0\0\0"), text), "text bomb")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "tail",
    [
        b"PK\x03\x04PK\x01\x02PK\x05\x06" + b"\0" * 18,
        b"<script>alert(1)</script>",
        b"%PDF-1.7\n",
        b"<?php system($_GET['c']);",
        b"Rar!\x1a\x07\x01\x00",
    ],
)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_picture_that_is_something_else_as_well_is_refused(tail: bytes, form: str) -> None:
    content = encoded(pixels(), form)
    decode(content, "plain")
    with pytest.raises(UnreadableImageError, match="something else"):
        decode(content + tail, "polyglot")


def test_padding_behind_a_picture_is_no_crime() -> None:
    for form in ("PNG", "JPEG"):
        assert decode(encoded(pixels(), form) + b"\0" * 512 + b"\r\n", "padded").size.width == 160


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2)])
def test_tiny_and_thin_pictures_are_read(client: FlaskClient, size: tuple[int, int]) -> None:
    for content in (encoded(pixels(*size)), encoded(pixels(*size), "JPEG")):
        answer = client.post("/v1/analyze?heatmap=true", data={"image": (io.BytesIO(content), "p.png")})
        assert answer.status_code == 200 and "error" not in answer.json["results"][0], answer.text


def test_pixels_are_counted_before_they_are_decoded() -> None:
    with pytest.raises(UnreadableImageError, match="at most 100 pixels"):
        decode(encoded(pixels(20, 20)), "p", DecodeLimits(max_pixels=100))


def test_a_phone_s_two_pictures_in_one_file_count_as_the_first() -> None:
    first, second = Image.fromarray(pixels()), Image.fromarray(pixels(40, 30))
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    assert decode(content, "phone").size.width == 160


def test_nothing_of_a_request_is_logged(client: FlaskClient, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level("DEBUG")
    client.post("/predict", data={"image": (io.BytesIO(MARK), "SECRET-PATIENT-NAME.png")})
    headers = {"Authorization": "Bearer SECRET-PATIENT-NAME"}
    client.post("/predict", json={"tasks": [{"data": {"image": "SECRET-PATIENT-NAME"}}]}, headers=headers)
    assert "SECRET-PATIENT-NAME" not in caplog.text
