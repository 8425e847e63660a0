"""One picture, one answer: through five doors the same boxes to a thousandth of a pixel and shares to 1e-4."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from builders_serving import bundle, encoded, pixels
from flask import Flask
from PIL import Image
from werkzeug.test import EnvironBuilder

from converters import taxonomy
from converters.annotation import Annotation, Finding, ImageRecord, Lesion, TruthLevel
from converters.dataset import Dataset, DatasetItem, Split, freeze
from converters.geometry import PixelBox
from converters.label_studio import results
from ml_backend import lambda_handlers
from ml_backend.app import create_app
from ml_backend.pipeline import ImagePrediction, Pipeline
from ml_backend.settings import read_settings
from training import evaluation

KNOWN = taxonomy.read()


@dataclass(frozen=True)
class Told:
    """What a door says of a picture: boxes with their scores, and the shares of each by class name.

    Label Studio is told shares as text, which is compared on its own.
    """

    boxes: list[tuple[float, ...]]
    scores: list[float]
    shares: list[dict[str, float]]


@functools.cache
def golden() -> dict[str, bytes]:
    base = Image.fromarray(pixels(320, 240, ((30, 40, 120, 140), (190, 80, 280, 200))))
    exif = Image.Exif()
    exif[0x0112] = 6
    large = pixels(6000, 4000, ((600, 800, 2400, 2600), (3500, 500, 5200, 1900)))
    return {
        "plain.png": encoded(base),
        "turned.jpg": encoded(base.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=92),
        "cmyk.jpg": encoded(base.convert("CMYK"), "JPEG", quality=92),
        "grey.png": encoded(base.convert("L")),
        "grey.jpg": encoded(base.convert("L"), "JPEG", quality=92),
        "sixteen.png": encoded(Image.fromarray(np.asarray(base.convert("L"), dtype=np.uint16) << 8)),
        "alpha.png": encoded(base.convert("RGBA")),
        "tiny.png": encoded(pixels(9, 7, ((2, 2, 4, 5),))),
        "progressive.jpg": encoded(base, "JPEG", progressive=True),
        "large.jpg": encoded(large, "JPEG", quality=80),
    }


@pytest.fixture(scope="module", params=["both stages", "detector alone"])
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    home = tmp_path_factory.mktemp("home")
    bundle(home, classifier=request.param == "both stages")
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
    return {name: pipeline.predict([pipeline.decode(content, name)])[0] for name, content in golden().items()}


def label_studio(app: Flask, expected: dict[str, ImagePrediction]) -> Iterator[Told]:
    tasks = [{"id": n, "data": {"image": f"/data/local-files/?d=images/{name}"}} for n, name in enumerate(expected)]
    entries = app.test_client().post("/predict", json={"tasks": tasks}).json["results"]
    for entry, want in zip(entries, expected.values(), strict=True):
        read = results.decode(entry["result"], want.size, KNOWN, "task").lesions
        texts = [row["value"]["text"][0] for row in entry["result"] if row["type"] == "textarea"]
        assert texts == [text for lesion in want.lesions if (text := results.reading_text(lesion))]
        assert [lesion.diagnosis for lesion in read] == [lesion.diagnosis for lesion in want.lesions]
        yield Told([edges(one.box) for one in read], [one.score or 0.0 for one in read], [])


def rest(app: Flask, _expected: dict[str, ImagePrediction]) -> Iterator[Told]:
    files = [(io.BytesIO(content), name) for name, content in golden().items()]
    answer = app.test_client().post("/v1/analyze", data={"image": files}).json
    yield from (told(result["lesions"]) for result in answer["results"])


def gateway(_app: Flask, expected: dict[str, ImagePrediction]) -> Iterator[Told]:
    for name in expected:
        sent = EnvironBuilder(method="POST", data={"image": (io.BytesIO(golden()[name]), name)}).get_request()
        event = {
            "rawPath": "/predict",
            "requestContext": {"http": {"method": "POST"}},
            "headers": {"content-type": sent.content_type, "host": "localhost"},
            "body": base64.b64encode(sent.get_data()).decode(),
            "isBase64Encoded": True,
        }
        yield told(json.loads(base64.b64decode(lambda_handlers.on_request(event)["body"]))["lesions"])


def evaluated(app: Flask, expected: dict[str, ImagePrediction]) -> Iterator[Told]:
    """The served lesions as the truth, so that evaluation reads those very boxes."""
    serving = app.extensions["dermloop"].host.current().bundle
    home = Path(app.extensions["dermloop"].settings.home)
    paths = {hashlib.sha256(golden()[name]).hexdigest(): home / "images" / name for name in expected}
    items = tuple(item(*pair) for pair in zip(paths, expected.values(), strict=True))
    version = freeze(Dataset(KNOWN, items), paths, home / "datasets", {})
    frozen = {item.record.image_id: item for item in version.dataset.items}
    for answer in evaluation.answers_of(serving, version, [frozen[image_id] for image_id in paths]):
        readings = [dict(reading.probabilities) for reading in answer.readings if reading is not None]
        yield Told([edges(box) for box in answer.boxes], list(answer.scores), readings)


def item(image_id: str, found: ImagePrediction) -> DatasetItem:
    truth = tuple(Lesion(lesion.box, lesion.diagnosis) for lesion in found.lesions)
    annotation = Annotation(image_id, Finding.LESIONS, truth, TruthLevel.CONSENSUS)
    return DatasetItem(ImageRecord(image_id, "", found.size, synthetic=True), annotation, Split.TEST)


@pytest.mark.parametrize("door", [label_studio, rest, gateway, evaluated])
def test_every_door_says_what_the_python_api_says(
    door: Callable[[Flask, dict[str, ImagePrediction]], Iterator[Told]],
    app: Flask,
    expected: dict[str, ImagePrediction],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lambda_handlers, "application", lambda: app)
    for (name, want), said in zip(expected.items(), door(app, expected), strict=True):
        assert want.lesions, f"{name} shows nothing"
        assert np.allclose(said.boxes, [edges(lesion.box) for lesion in want.lesions], atol=1e-3), name
        assert np.allclose(said.scores, [lesion.score for lesion in want.lesions], atol=1e-4), name
        wanted = [dict(reading.probabilities) for reading in want.readings if reading is not None]
        for shares, reading in zip(said.shares or wanted, wanted, strict=True):
            assert shares == pytest.approx(reading, abs=1e-4), name


def told(rows: list[dict[str, object]]) -> Told:
    boxes = [tuple(row["box"]) for row in rows]  # type: ignore[arg-type]
    return Told(boxes, [row["score"] for row in rows], [row["probabilities"] for row in rows if "probabilities" in row])  # type: ignore[misc]


def edges(box: PixelBox) -> tuple[float, ...]:
    return box.x_min, box.y_min, box.x_max, box.y_max
