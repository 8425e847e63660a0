"""One picture, one answer: the Python API, Label Studio's protocol, REST, Lambda and a push agree to 1e-4."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from builders_serving import bundle, encoded, pixels
from flask import Flask
from PIL import Image
from werkzeug.test import EnvironBuilder

from converters import taxonomy
from converters.annotation import Lesion
from converters.label_studio import results
from ml_backend import lambda_handlers
from ml_backend.app import create_app
from ml_backend.images import decode
from ml_backend.pipeline import ImagePrediction, Pipeline
from ml_backend.settings import read_settings

KNOWN = taxonomy.read()


def golden() -> dict[str, bytes]:
    base = Image.fromarray(pixels(320, 240, ((30, 40, 120, 140), (190, 80, 280, 200))))
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = encoded(base, "JPEG", quality=92)
    large = encoded(pixels(6000, 4000, ((600, 800, 2400, 2600), (3500, 500, 5200, 1900))), "JPEG", quality=80)
    return {
        "plain.png": encoded(base),
        "turned.jpg": encoded(base.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=92),
        "cmyk.jpg": encoded(base.convert("CMYK"), "JPEG", quality=92),
        "grey.png": encoded(base.convert("L")),
        "sixteen.png": encoded(Image.fromarray(np.asarray(base.convert("L"), dtype=np.uint16) << 8)),
        "alpha.png": encoded(base.convert("RGBA")),
        "tiny.png": encoded(pixels(9, 7, ((2, 2, 4, 5),))),
        "progressive.jpg": encoded(base, "JPEG", progressive=True),
        "again.jpg": profile,
        "large.jpg": large,
    }


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    home = tmp_path_factory.mktemp("home")
    bundle(home)
    (home / "images").mkdir()
    for name, content in golden().items():
        (home / "images" / name).write_bytes(content)
    made = create_app(read_settings(home=home))
    yield made
    made.extensions["dermloop"].close()


@pytest.fixture(scope="module")
def expected(app: Flask) -> dict[str, ImagePrediction]:
    serving = app.extensions["dermloop"].host.current().bundle
    pipeline = Pipeline.open(serving)
    return {name: pipeline.predict([decode(content, name)])[0] for name, content in golden().items()}


def test_every_golden_picture_shows_something(expected: dict[str, ImagePrediction]) -> None:
    assert all(found.lesions for found in expected.values())


def test_label_studio_is_told_the_same(app: Flask, expected: dict[str, ImagePrediction]) -> None:
    tasks = [{"id": n, "data": {"image": f"/data/local-files/?d=images/{name}"}} for n, name in enumerate(expected)]
    entries = app.test_client().post("/predict", json={"tasks": tasks}).json["results"]
    for entry, want in zip(entries, expected.values(), strict=True):
        read = results.decode(entry["result"], want.size, KNOWN, "task")
        for lesion, wanted in zip(read.lesions, want.lesions, strict=True):
            assert near(lesion, wanted) and lesion.diagnosis == wanted.diagnosis
            assert lesion.score == pytest.approx(wanted.score, abs=1e-4)
        texts = [row["value"]["text"][0] for row in entry["result"] if row["type"] == "textarea"]
        assert texts == [results.reading_text(lesion) for lesion in want.lesions]


def test_rest_says_the_same(app: Flask, expected: dict[str, ImagePrediction]) -> None:
    files = [(io.BytesIO(content), name) for name, content in golden().items()]
    answer = app.test_client().post("/v1/analyze", data={"image": files}).json
    for result, want in zip(answer["results"], expected.values(), strict=True):
        assert_same(result["lesions"], want)


def test_lambda_says_the_same(
    app: Flask, expected: dict[str, ImagePrediction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lambda_handlers, "application", lambda: app)
    for name, content in golden().items():
        sent = EnvironBuilder(method="POST", data={"image": (io.BytesIO(content), name)}).get_request()
        event = {
            "rawPath": "/predict",
            "requestContext": {"http": {"method": "POST"}},
            "headers": {"content-type": sent.content_type, "host": "localhost"},
            "body": base64.b64encode(sent.get_data()).decode(),
            "isBase64Encoded": True,
        }
        told = json.loads(base64.b64decode(lambda_handlers.on_request(event)["body"]))
        assert_same(told["lesions"], expected[name])


def assert_same(rows: list[dict[str, object]], want: ImagePrediction) -> None:
    assert len(rows) == len(want.lesions)
    for row, lesion, reading in zip(rows, want.lesions, want.readings, strict=True):
        assert reading is not None
        edges = [lesion.box.x_min, lesion.box.y_min, lesion.box.x_max, lesion.box.y_max]
        assert np.allclose(row["box"], edges, atol=1e-3)
        assert row["probabilities"] == pytest.approx(dict(reading.probabilities), abs=1e-4)
        assert row["malignant"] == pytest.approx(reading.malignant, abs=1e-4)


def near(one: Lesion, other: Lesion) -> bool:
    edges = ("x_min", "y_min", "x_max", "y_max")
    return all(abs(getattr(one.box, edge) - getattr(other.box, edge)) < 1e-3 for edge in edges)
