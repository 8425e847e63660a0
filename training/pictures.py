"""The pictures of a report: lesions read wrongly with their heat-maps, and pictures where a lesion was missed."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from converters.annotation import Lesion
from converters.dataset import DatasetItem, DatasetVersion
from converters.geometry import PixelBox
from ml_backend import preprocessing
from ml_backend.bundle import ClassifierSpec, ModelBundle
from ml_backend.images import DecodedImage
from ml_backend.pipeline import Pipeline
from ml_backend.preprocessing import Pixels
from ml_backend.reading import Reading
from training import datasets
from training.report import EvaluationReport

_MISTAKES = 8
_PICTURE = 160
_WHOLE = 320
_TRUE, _DRAWN = (27, 138, 61), (230, 138, 0)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One lesion read wrongly: truth and answer in words, the crop and its heat-map as data addresses."""

    image_id: str
    words: str
    crop: str
    heat: str


@dataclass(frozen=True, slots=True)
class Missed:
    """One picture with a missed lesion or a false alarm: what happened in words, and the picture with its boxes."""

    image_id: str
    words: str
    picture: str


def mistakes(bundle: ModelBundle, version: DatasetVersion, report: EvaluationReport) -> Iterator[Mistake]:
    """The lesions whose true class got the least, worst first, malignant ones before benign ones."""
    spec = bundle.classifier
    if spec is None:
        return
    items = {item.record.image_id: item for item in version.dataset.items}
    pipeline = Pipeline.open(bundle)
    for image_id in _misread(report):
        item = items.get(image_id)
        if item is not None:
            yield from _worst_of(pipeline, version, item, spec)


def missed(bundle: ModelBundle, version: DatasetVersion, report: EvaluationReport) -> Iterator[Missed]:
    """Pictures with missed lesions, then those with the most false alarms; true boxes green, drawn ones orange."""
    if bundle.detector is None:
        return
    items = {item.record.image_id: item for item in version.dataset.items}
    wrong = [(case.found.count(False), case.false_alarms, case.image_id) for case in report.cases]
    chosen = sorted((row for row in wrong if row[0] or row[1]), key=lambda row: (-row[0], -row[1], row[2]))
    pipeline = Pipeline.open(bundle)
    for lost, alarms, image_id in chosen[:_MISTAKES]:
        item = items.get(image_id)
        if item is not None:
            image = datasets.read_decoded(version, item, bundle)
            drawn = [lesion.box for lesion in pipeline.predict([image])[0].lesions]
            boxed = _boxed(image, [lesion.box for lesion in item.truth.lesions], drawn)
            yield Missed(image_id, f"{lost} missed, {alarms} false", _address(boxed))


def _misread(report: EvaluationReport) -> list[str]:
    wrong = [
        (not reading.malignant, reading.probabilities[reading.truth], case.image_id)
        for case in report.cases
        for reading in case.readings
        if max(reading.probabilities) > reading.probabilities[reading.truth]
    ]
    return list(dict.fromkeys(image_id for _, _, image_id in sorted(wrong)))[:_MISTAKES]


def _worst_of(
    pipeline: Pipeline, version: DatasetVersion, item: DatasetItem, spec: ClassifierSpec
) -> Iterator[Mistake]:
    image = datasets.read_decoded(version, item)
    lesions = item.truth.lesions
    for lesion, reading in zip(lesions, pipeline.read([(image, one.box) for one in lesions]), strict=True):
        index = datasets.class_index(lesion, spec.target, version.dataset.taxonomy)
        if reading is None or index is None or spec.classes[index] == reading.top:
            continue
        shares, truth = dict(reading.probabilities), spec.classes[index]
        words = f"{truth} ({shares[truth]:.0%}) read as {reading.top} ({shares[reading.top]:.0%})"
        crop = _crop(image, lesion, spec)
        yield Mistake(item.record.image_id, words, _address(crop), _address(_heated(crop, reading)))


def _crop(image: DecodedImage, lesion: Lesion, spec: ClassifierSpec) -> Pixels:
    return preprocessing.crop_lesion(image.pixels, image.to_pixels(lesion.box), spec.crop_padding, _PICTURE)


def _heated(crop: Pixels, reading: Reading) -> Pixels:
    """The crop under the reading's class activation map: red where the answer comes from."""
    if reading.cam is None:
        return crop
    small = Image.fromarray((255 * np.clip(reading.cam, 0, 1)).astype(np.uint8))
    heat = np.asarray(small.resize((_PICTURE, _PICTURE), Image.Resampling.BICUBIC), dtype=np.float32)[..., None] / 255
    red = np.array([230, 30, 40], dtype=np.float32)
    return np.asarray(crop * (1 - 0.6 * heat) + red * 0.6 * heat, dtype=np.uint8)


def _boxed(image: DecodedImage, truths: list[PixelBox], drawn: list[PixelBox]) -> Pixels:
    picture = Image.fromarray(image.pixels)
    picture.thumbnail((_WHOLE, _WHOLE))
    pen = ImageDraw.Draw(picture)
    x, y = picture.width / image.size.width, picture.height / image.size.height
    for boxes, colour in ((truths, _TRUE), (drawn, _DRAWN)):
        for box in boxes:
            scaled = box.scaled(x, y)
            pen.rectangle((scaled.x_min, scaled.y_min, scaled.x_max, scaled.y_max), outline=colour, width=3)
    return np.asarray(picture)


def _address(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
