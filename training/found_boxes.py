"""Where a served detector finds the lesions of a split: the boxes that the classifier will really be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from converters.annotation import Lesion
from converters.dataset import DatasetItem, DatasetVersion, Split
from converters.geometry import PixelBox
from ml_backend.bundle import ModelBundle
from ml_backend.pipeline import Pipeline
from training import datasets

_ENOUGH = 0.5
_CHUNK = 32


def found_boxes(version: DatasetVersion, split: Split, bundle: ModelBundle) -> Mapping[str, tuple[PixelBox, ...]]:
    """For each gradable image the box of each true lesion as the bundle's detector draws it; its own where missed.

    A detection counts from an overlap (IoU) of a half; of several the one with the most.
    """
    items = [item for item in datasets.gradable(version.dataset.only(split)) if item.truth.lesions]
    pipeline = Pipeline.open(replace(bundle, classifier=None))
    found: dict[str, tuple[PixelBox, ...]] = {}
    for start in range(0, len(items), _CHUNK):
        part = items[start : start + _CHUNK]
        answers = pipeline.predict([datasets.read_decoded(version, item, bundle) for item in part])
        for item, answer in zip(part, answers, strict=True):
            found[item.record.image_id] = _matched(item, [lesion.box for lesion in answer.lesions])
    return found


def _matched(item: DatasetItem, drawn: list[PixelBox]) -> tuple[PixelBox, ...]:
    def nearest(lesion: Lesion) -> PixelBox:
        best = max(drawn, key=lesion.box.iou, default=lesion.box)
        return best if lesion.box.iou(best) >= _ENOUGH else lesion.box

    return tuple(nearest(lesion) for lesion in item.truth.lesions)
