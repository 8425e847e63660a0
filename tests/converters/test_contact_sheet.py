"""The contact sheet draws what was marked as it was marked: inside a hole there is picture, inside a mask a tint."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_converters import a_lesion, an_answer, an_item
from PIL import Image

from converters.annotation import Finding, Shape
from converters.contact_sheet import HEAD, MARGIN, TILE, contact_sheet
from converters.dataset import DatasetItem
from converters.formats.metadata_csv import WHOLE_IMAGE
from converters.geometry import Ellipse, ImageSize, KeyPoint, PixelBox, Polygon, RleMask, RotatedBox

SIDE = TILE
RED = (0xC2, 0x18, 0x5B)


def ring_mask() -> RleMask:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[40:120, 40:120] = True
    mask[65:95, 65:95] = False
    return RleMask.from_array(mask)


SHAPES: dict[str, Shape] = {
    "box": PixelBox(40, 40, 120, 120),
    "turned": RotatedBox(80, 80, 70, 60, 45),
    "ellipse": Ellipse(80, 80, 50, 30, 20),
    "polygon": Polygon(((40, 40), (120, 50), (90, 120)), (((75, 60), (90, 62), (85, 75)),)),
    "mask": ring_mask(),
}


def drawn(folder: Path, *shapes: Shape, redact: tuple[Shape, ...] = ()) -> np.ndarray:
    items = []
    for number, shape in enumerate(shapes):
        path = folder / f"{number}.png"
        Image.new("RGB", (SIDE, SIDE), (90, 160, 120)).save(path)
        lesion = a_lesion("mel", shape.envelope() if not isinstance(shape, PixelBox) else shape, shape=shape)
        lesion = replace(lesion, keypoints=(KeyPoint(20, 140, "mole"),))
        item = an_item(path.name)
        record = replace(item.record, uri=str(path), size=ImageSize(SIDE, SIDE))
        items.append(replace(item, record=record, truth=replace(an_answer(lesion), redactions=redact)))
    return pixels(items)


def pixels(items: list[DatasetItem]) -> np.ndarray:
    """The sheet from the first picture's top-left corner on."""
    return np.asarray(Image.open(io.BytesIO(contact_sheet(items))).convert("RGB"))[HEAD + MARGIN :, MARGIN:]


def is_red(sheet: np.ndarray, x: int, y: int) -> bool:
    return bool((np.abs(sheet[y - 2 : y + 3, x - 2 : x + 3].astype(int) - RED).sum(axis=2) < 30).any())


EDGES = {
    "box": ((80, 40), (80, 80)),
    "turned": ((106, 59), (80, 80)),
    "ellipse": ((33, 63), (80, 80)),
    "polygon": ((80, 45), (100, 68)),
    "mask": ((80, 65), (80, 80)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_outlined_where_it_lies(tmp_path: Path, name: str) -> None:
    sheet = drawn(tmp_path, SHAPES[name])
    on, off = EDGES[name]
    assert is_red(sheet, *on) and not is_red(sheet, *off)
    assert is_red(sheet, 20, 140)


def test_a_mask_is_tinted_but_for_its_holes_and_redactions_are_black(tmp_path: Path) -> None:
    sheet = drawn(tmp_path, SHAPES["mask"], redact=(PixelBox(0, 0, 10, 10),))
    assert tuple(sheet[80, 80]) == (90, 160, 120)
    assert sheet[50, 100, 0] > 100
    assert not sheet[2:8, 2:8].any()


def test_a_diagnosis_for_the_whole_picture_and_a_negative_have_a_label_and_no_frame(tmp_path: Path) -> None:
    path = tmp_path / "ä 日本.png"
    Image.new("RGB", (SIDE, SIDE), (90, 160, 120)).save(path)
    record = replace(an_item(path.name).record, uri=str(path), size=ImageSize(SIDE, SIDE))
    whole = an_answer(a_lesion("mel", PixelBox(0, 0, SIDE, SIDE), attributes=(WHOLE_IMAGE,)))
    for truth in (whole, replace(an_answer(), finding=Finding.UNGRADABLE)):
        sheet = pixels([replace(an_item(), record=record, truth=truth)])
        assert tuple(sheet[4, 1]) != (90, 160, 120)
        assert (sheet[SIDE // 2 : SIDE, :SIDE] == (90, 160, 120)).all()
