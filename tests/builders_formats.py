"""Datasets for format tests: hypothesis strategies that reach for the corners, and a short way through a conversion."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from builders_converters import TAXONOMY, a_record, an_answer, picture
from hypothesis import strategies as st

from converters.annotation import Confirmation, Finding, Lesion, TruthLevel
from converters.convert import convert
from converters.dataset import DatasetItem, Split
from converters.formats.contract import Format, ReadSettings, WriteSettings
from converters.formats.located import address_id
from converters.geometry import Ellipse, ImageSize, KeyPoint, PixelBox, Polygon, RleMask, RotatedBox
from converters.report import ConversionReport, Entry
from converters.request import Request

POINTS = ("border", "centre")
NAMES = (
    "a.jpg",
    "b/a.jpg",
    "c/A.JPG",
    "ä ö/Hautläsion №1.png",
    "con.jpg",
    ".hidden.jpg",
    "x" * 240 + ".jpg",
    "日本.jpg",
)


def memory_format(items: tuple[DatasetItem | Entry, ...]) -> Format:
    """A source that holds these items and nothing else."""

    def read(source: Path, settings: ReadSettings) -> Iterator[DatasetItem | Entry]:
        return iter(items)

    return Format("memory", "items at hand", lambda source: False, read=read)


def converted(items: tuple[DatasetItem | Entry, ...], writer: Format, target: Path, **facts: Any) -> ConversionReport:
    settings = WriteSettings(TAXONOMY, keypoints=POINTS)
    request = Request(target.parent, target, memory_format(items), writer, ReadSettings(TAXONOMY), settings)
    return convert(replace(request, **facts))


@st.composite
def boxes(draw: st.DrawFn, size: ImageSize) -> PixelBox:
    """Boxes inside the image: tiny ones, whole ones, ones that touch the border, fractions of pixels."""
    if draw(st.booleans()):
        x0, x1 = sorted(draw(st.tuples(st.integers(0, size.width), st.integers(0, size.width))))
        y0, y1 = sorted(draw(st.tuples(st.integers(0, size.height), st.integers(0, size.height))))
        return (
            PixelBox(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)).clipped(size)
            if x0 < size.width and y0 < size.height
            else whole(size)
        )
    x, y = draw(st.floats(0, size.width - 0.5)), draw(st.floats(0, size.height - 0.5))
    width, height = draw(st.floats(0.25, size.width)), draw(st.floats(0.25, size.height))
    return PixelBox(x, y, x + width, y + height).clipped(size)


def whole(size: ImageSize) -> PixelBox:
    return PixelBox(0, 0, size.width, size.height)


@st.composite
def shapes(draw: st.DrawFn, size: ImageSize) -> Any:
    """Turned boxes, ellipses, polygons with and without holes, masks with holes and several parts."""
    kind = draw(st.sampled_from(["turned", "ellipse", "polygon", "holed", "mask"]))
    w, h = size.width, size.height
    if kind == "turned":
        return RotatedBox(w / 2, h / 2, w / 3, h / 4, draw(st.floats(-180, 180)))
    if kind == "ellipse":
        return Ellipse(w / 2, h / 2, w / 3, h / 5, draw(st.floats(0, 360)))
    if kind == "polygon":
        return Polygon(((0.0, 0.0), (w * 1.0, 0.0), (w * 0.7, h * 0.5), (w * 1.0, h * 1.0), (0.0, h * 0.9)))
    if kind == "holed":
        ring = tuple((w / 2 + w * 0.2 * x, h / 2 + h * 0.2 * y) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
        return Polygon(((1.0, 1.0), (w - 1.0, 1.0), (w - 1.0, h - 1.0), (1.0, h - 1.0)), (ring,))
    seed = draw(st.integers(0, 5))
    mask = np.random.default_rng(seed).random((h, w)) < 0.5
    mask[h // 2, w // 2] = True
    return RleMask.from_array(mask)


@st.composite
def lesions(draw: st.DrawFn, size: ImageSize) -> Lesion:
    shape = draw(st.none() | shapes(size))
    box = draw(boxes(size)) if shape is None else shape.envelope()
    code = draw(st.sampled_from(TAXONOMY.codes))
    inside = box.clipped(size)
    names = draw(st.sampled_from([(), (), POINTS, POINTS[:1]]))
    points = tuple(KeyPoint(*inside.centre, name, draw(st.booleans())) for name in names)
    return Lesion(
        box,
        code,
        TAXONOMY.resolve(code).severity.value,
        shape=shape,
        keypoints=points,
        score=draw(st.none() | st.sampled_from([0.0, 0.25, 1.0])),
        attributes=draw(st.sampled_from([(), (("border", "irregular"),), (("rating:certainty", "4"),)])),
    )


def _boxes_apart(found: list[Lesion], size: ImageSize) -> bool:
    keys = [lesion.box.clipped(size) for lesion in found]
    return len(set(keys)) == len(keys)


@st.composite
def items(draw: st.DrawFn, name: str) -> DatasetItem:
    """One image known by address: any size from 8×8, no lesion to three, facts here and there."""
    size = ImageSize(draw(st.integers(8, 60)), draw(st.integers(8, 60)))
    found = draw(st.lists(lesions(size), max_size=3).filter(lambda some: _boxes_apart(some, size)))
    numbered = tuple(replace(lesion, region_id=f"r{index}") for index, lesion in enumerate(found))
    record = a_record(
        name,
        image_id=address_id(name),
        uri=name,
        size=size,
        original_name=name.rpartition("/")[2],
        patient_id=draw(st.sampled_from([None, "P1"])),
        age=draw(st.sampled_from([None, 0.0, 61.0])),
        skin_type=draw(st.sampled_from([None, 4])),
        confirmation=draw(st.sampled_from(Confirmation)),
        consent=draw(st.sampled_from([None, False, True])),
        synthetic=draw(st.booleans()),
    )
    level = draw(st.sampled_from(TruthLevel))
    moment = datetime(2026, 1, 2, 3, tzinfo=UTC)
    truth = an_answer(*numbered, image_id=record.image_id, level=level, author="qa@example.org", created_at=moment)
    return DatasetItem(record, truth, draw(st.sampled_from(Split)))


@st.composite
def datasets(draw: st.DrawFn) -> tuple[DatasetItem, ...]:
    """None to four images under names that have troubled other converters."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    return tuple(draw(items(name)) for name in names)


def ungradable(item: DatasetItem) -> DatasetItem:
    return replace(item, truth=replace(item.truth, finding=Finding.UNGRADABLE, lesions=()))


def with_bytes(items: tuple[DatasetItem, ...], folder: Path) -> tuple[DatasetItem, ...]:
    """The items with pictures of their size in `folder`, each in a folder of its own."""
    made = []
    for number, item in enumerate(items):
        content = picture(item.record.size.width, item.record.size.height, seed=number, format="PNG")
        path = folder / str(number) / "picture.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        image_id = hashlib.sha256(content).hexdigest()
        record = replace(item.record, image_id=image_id, uri=str(path))
        made.append(replace(item, record=record, truth=replace(item.truth, image_id=image_id)))
    return tuple(made)
