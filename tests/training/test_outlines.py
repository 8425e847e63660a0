"""Dice and IoU compare what is drawn with what is true, and say nothing where no outline is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_serving import bundle
from builders_training import QUICK, TAXONOMY, served_version

from converters.annotation import Lesion, Shape
from converters.dataset import Dataset, DatasetVersion, Split, freeze
from converters.geometry import Ellipse, ImageSize, PixelBox, Polygon, RleMask
from training.evaluation import evaluate
from training.outlines import overlap

SIZE = ImageSize(100, 80)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return Polygon(((x0, y0), (x1, y0), (x1, y1), (x0, y1)))


def lesion(shape: Shape | None) -> Lesion:
    return Lesion(PixelBox(0, 0, 40, 40), "nv", shape=shape)


def test_dice_and_iou_of_rectangles_are_what_a_ruler_says() -> None:
    found = overlap([lesion(rectangle(0, 0, 40, 40))], [rectangle(20, 0, 60, 40)], SIZE)
    assert found is not None
    assert found.dice == pytest.approx(0.5, abs=0.01)
    assert found.iou == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("side", [100, 3000])
def test_a_mask_and_the_polygon_around_it_are_the_same(side: int) -> None:
    size, mask = ImageSize(side, side), np.zeros((side, side), dtype=bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    found = overlap([lesion(RleMask.from_array(mask))], [rectangle(side / 4, side / 4, side / 2, side / 2)], size)
    assert found is not None
    assert found.dice == pytest.approx(1.0, abs=0.02)


def test_nothing_drawn_overlaps_by_nothing_and_no_true_outline_measures_nothing() -> None:
    missed = overlap([lesion(Ellipse(20, 20, 10, 10))], [], SIZE)
    assert missed is not None
    assert (missed.dice, missed.iou) == (0, 0)
    assert overlap([lesion(None)], [rectangle(0, 0, 9, 9)], SIZE) is None
    assert overlap([], [], SIZE) is None


def outlined(folder: Path) -> DatasetVersion:
    plain = served_version(folder / "plain")
    items = tuple(
        replace(item, truth=replace(item.truth, lesions=tuple(_exact(one) for one in item.truth.lesions)))
        for item in plain.dataset.items
    )
    sources = {item.record.image_id: plain.path(item) for item in plain.dataset.items}
    return freeze(Dataset(TAXONOMY, items), sources, folder / "datasets", {})


def _exact(one: Lesion) -> Lesion:
    return replace(one, shape=rectangle(one.box.x_min, one.box.y_min, one.box.x_max, one.box.y_max))


def test_a_segmenting_bundle_is_measured_by_the_outlines_it_serves(tmp_path: Path) -> None:
    one = bundle(tmp_path, segment=True)
    report = evaluate(one, outlined(tmp_path), Split.TEST, QUICK)
    dice, iou = report.get("dice"), report.get("outline_iou")
    assert dice is not None
    assert iou is not None
    assert dice.cases == 4
    assert 0.85 < iou.value < dice.value <= 1
    assert dice.low <= dice.value <= dice.high


def test_a_detector_of_boxes_has_no_dice(tmp_path: Path) -> None:
    report = evaluate(bundle(tmp_path), outlined(tmp_path), Split.TEST, QUICK)
    assert report.get("dice") is None
    assert all(math.isnan(case.dice) for case in report.cases)
