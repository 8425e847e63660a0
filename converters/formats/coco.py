"""COCO: `annotations/instances_<split>.json` with boxes, polygons, run-length masks, keypoints and crowds.

Categories are the taxonomy's classes under id + 1, whatever occurs in the data; a lesion without a diagnosis has a
category of its own from 1001 on. What COCO has no word for stands under a `dermloop` key that other programs ignore.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from operator import attrgetter
from typing import IO, Any

import orjson

from converters import manifest
from converters.annotation import Lesion, Origin, Shape
from converters.formats.coco_masks import encode_segmentation
from converters.formats.coco_read import CROWD, EXTRA, read, sniff
from converters.formats.contract import (
    ALL_FIELDS,
    Carries,
    Format,
    Picture,
    Piece,
    Placed,
    Shapes,
    WriteSettings,
)
from converters.geometry import Ellipse, ImageSize, PixelBox, Polygon, RleMask, RotatedBox
from converters.label_studio import controls
from converters.raster import shape_to_mask

_OPEN_START = 1001
_OPEN = {severity: _OPEN_START + index for index, severity in enumerate(controls.OPEN_LABELS)}
_CHUNK = 1 << 20
_BATCH = 200
_MANUAL = Origin.MANUAL


@dataclass(slots=True)
class _Rows:
    """Rows of one list of a file, turned into bytes many at a time: `count` were added, the last of them wait."""

    count: int = 0
    waiting: list[Mapping[str, Any]] = field(default_factory=list)
    _begun: bool = False

    def take(self) -> bytes:
        """What waits, as it follows what was taken before."""
        if not self.waiting:
            return b""
        content = (b",\n" if self._begun else b"") + orjson.dumps(self.waiting)[1:-1]
        self._begun = True
        self.waiting.clear()
        return content


@dataclass(frozen=True, slots=True)
class _File:
    """The file of one split: annotations go straight into it, the rows of its images wait on disk for their turn."""

    path: str
    spooled: IO[bytes]
    images: _Rows = field(default_factory=_Rows)
    annotations: _Rows = field(default_factory=_Rows)

    def begun(self, settings: WriteSettings) -> Piece:
        """What stands before the annotations."""
        head = b'{"info":{"description":"dermloop export"},"licenses":[],"categories":'
        return Piece(self.path, head + orjson.dumps(_categories(settings)) + b',\n"annotations":[')

    def add(self, placed: Placed, categories: _Categories) -> bool:
        """Append an item; whether annotations should be taken."""
        images, annotations, item = self.images, self.annotations, placed.item
        images.count = image = images.count + 1
        images.waiting.append(_image_row(placed, image))
        if len(images.waiting) >= _BATCH:
            self.spooled.write(images.take())
        size, number = item.record.size, annotations.count
        for lesion in item.truth.lesions:
            number += 1
            annotations.waiting.append(_annotation_row(lesion, size, number, image, categories))
        annotations.count = number
        return len(annotations.waiting) >= _BATCH

    def rest(self) -> Iterator[Piece]:
        """What is left when all items have been added."""
        yield Piece(self.path, self.annotations.take() + b'],\n"images":[')
        self.spooled.write(self.images.take())
        self.spooled.seek(0)
        while chunk := self.spooled.read(_CHUNK):
            yield Piece(self.path, chunk)
        yield Piece(self.path, b"]}\n")


@dataclass(frozen=True, slots=True)
class _Categories:
    """Category numbers by diagnosis, and the names of the points that every category has."""

    named: Mapping[str, int]
    keypoints: tuple[str, ...]

    @classmethod
    def of(cls, settings: WriteSettings) -> _Categories:
        """The numbers under the settings' taxonomy."""
        known = {diagnosis.code: diagnosis.id + 1 for diagnosis in settings.taxonomy.diagnoses}
        return cls(known, settings.keypoints)


def write(items: Iterable[Placed], settings: WriteSettings) -> Iterator[Piece | Picture]:
    """One instances file for each split, and the images under `images/<split>/`."""
    files: dict[str, _File] = {}
    categories = _Categories.of(settings)
    with ExitStack() as stack:
        for placed in items:
            if (file := files.get(split := placed.split)) is None:
                spooled = stack.enter_context(tempfile.TemporaryFile(buffering=0))
                file = files[split] = _File(f"annotations/instances_{split}.json", spooled)
                yield file.begun(settings)
            if file.add(placed, categories):
                yield Piece(file.path, file.annotations.take())
            if placed.image is not None:
                yield Picture(f"images/{split}/{placed.name}", placed)
        for _, file in sorted(files.items()):
            yield from file.rest()


def _categories(settings: WriteSettings) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"id": d.id + 1, "name": d.code, "supercategory": d.severity.value} for d in settings.taxonomy.diagnoses
    ]
    rows += [
        {"id": number, "name": controls.OPEN_LABELS[severity], "supercategory": severity or "open"}
        for severity, number in _OPEN.items()
    ]
    if settings.keypoints:
        rows = [{**row, "keypoints": list(settings.keypoints), "skeleton": []} for row in rows]
    return rows


def _image_row(placed: Placed, number: int) -> dict[str, Any]:
    name, record, size = placed.name, placed.item.record, placed.item.record.size
    row: dict[str, Any] = {"id": number, "file_name": name, "width": size.width, "height": size.height}
    extra = {}
    facts = manifest.encode_facts(record)
    if facts.get("original_name") == name:
        del facts["original_name"]
    if facts:
        extra["record"] = facts
    said = manifest.encode_answer(placed.item.truth)
    if said != _PLAIN:
        extra["truth"] = said
    if extra:
        row[EXTRA] = extra
    return row


_PLAIN = {"finding": "lesions", "level": "technician"}


def _annotation_row(
    lesion: Lesion, size: ImageSize, number: int, image: int, categories: _Categories
) -> dict[str, Any]:
    shape, diagnosis, box = lesion.shape, lesion.diagnosis, lesion.box
    x0, y0, x1, y1 = box.x_min, box.y_min, box.x_max, box.y_max
    if x0 < 0 or y0 < 0 or x1 > size.width or y1 > size.height:
        box = box.clipped(size)
        x0, y0, x1, y1 = box.x_min, box.y_min, box.x_max, box.y_max
    width, height = x1 - x0, y1 - y0
    row: dict[str, Any] = {
        "id": number,
        "image_id": image,
        "category_id": _OPEN[lesion.severity] if diagnosis is None else categories.named[diagnosis],
        "bbox": (x0, y0, width, height),
        "area": width * height if shape is None else _area(shape, box, size),
        "iscrowd": 1 if lesion.attributes and CROWD in lesion.attributes else 0,
        "segmentation": ((x0, y0, x1, y0, x1, y1, x0, y1),) if shape is None else encode_segmentation(shape, size),
    }
    if lesion.score is not None:
        row["score"] = lesion.score
    if lesion.keypoints and categories.keypoints:
        row["keypoints"], row["num_keypoints"] = _keypoints(lesion, categories.keypoints), len(lesion.keypoints)
    extra: dict[str, Any] = {"box": True} if shape is None else {}
    if lesion.region_id is not None:
        extra["region_id"] = lesion.region_id
    if _RARE(lesion) != _USUAL or shape is not None:
        extra |= _rare(lesion, shape)
    if extra:
        row[EXTRA] = extra
    return row


_RARE = attrgetter("origin", "probabilities", "attributes")
_USUAL = (_MANUAL, (), ())


def _rare(lesion: Lesion, shape: Shape | None) -> dict[str, Any]:
    """What COCO has no word for, and most lesions do not have."""
    extra: dict[str, Any] = {}
    if lesion.origin is not _MANUAL:
        extra["origin"] = lesion.origin.value
    if lesion.probabilities:
        extra["probabilities"] = lesion.probabilities
    if lesion.attributes:
        extra["attributes"] = lesion.attributes
    if isinstance(shape, RotatedBox):
        extra["turned"] = shape.angle
    return extra


def _area(shape: object, box: PixelBox, size: ImageSize) -> float:
    if isinstance(shape, RleMask):
        return shape.area()
    if isinstance(shape, Ellipse):
        return shape.outline().area()
    if isinstance(shape, Polygon):
        return int(shape_to_mask(shape, size).sum()) if shape.holes else shape.area()
    return shape.width * shape.height if isinstance(shape, RotatedBox) else box.area


def _keypoints(lesion: Lesion, names: Iterable[str]) -> list[float]:
    points = {point.name: point for point in lesion.keypoints}
    flat: list[float] = []
    for name in names:
        point = points.get(name)
        flat += [point.x, point.y, 2 if point.visible else 1] if point else [0, 0, 0]
    return flat


COCO = Format(
    "coco",
    "COCO instances: boxes, polygons, masks with holes, keypoints, crowds",
    sniff,
    read,
    write,
    Carries(Shapes.PIXELS, ALL_FIELDS - {"finding"}, keypoints=True),
)
