"""COCO: `annotations/instances_<split>.json` with boxes, polygons, run-length masks, keypoints and crowds.

Categories are the taxonomy's classes under id + 1, whatever occurs in the data; a lesion without a diagnosis has a
category of its own from 1001 on. What COCO has no word for stands under a `dermloop` key that other programs ignore.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

import orjson

from converters import manifest
from converters.annotation import Lesion, Origin
from converters.formats.coco_masks import encode_segmentation
from converters.formats.coco_read import CROWD, EXTRA, box_ring, read, sniff
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
from converters.geometry import ImageSize, PixelBox, Polygon, RleMask, RotatedBox
from converters.label_studio import controls
from converters.raster import shape_to_mask
from converters.taxonomy import Taxonomy

_OPEN_START = 1001
_OPEN = {severity: _OPEN_START + index for index, severity in enumerate(controls.OPEN_LABELS)}
_CHUNK = 1 << 20
_BATCH = 1000


@dataclass(slots=True)
class _Rows:
    """Rows of one list of a file, kept on disk once they are large; written many at a time."""

    stream: IO[bytes]
    count: int = 0
    _waiting: list[Mapping[str, Any]] = field(default_factory=list)
    _begun: bool = False

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self._waiting.append(row)
        if len(self._waiting) == _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            self.stream.write((b",\n" if self._begun else b"") + orjson.dumps(self._waiting)[1:-1])
            self._begun = True
            self._waiting.clear()


@dataclass(frozen=True, slots=True)
class _Spool:
    """The two lists of one split's file."""

    images: _Rows
    annotations: _Rows


def write(items: Iterable[Placed], settings: WriteSettings) -> Iterator[Piece | Picture]:
    """One instances file for each split, and the images under `images/<split>/`."""
    spools: dict[str, _Spool] = {}
    with ExitStack() as stack:
        for placed in items:
            if placed.split not in spools:
                streams = (stack.enter_context(_temporary()) for _ in range(2))
                spools[placed.split] = _Spool(*map(_Rows, streams))
            _add(spools[placed.split], placed, settings)
            if placed.image is not None:
                yield Picture(f"images/{placed.split}/{placed.name}", placed)
        for split, spool in sorted(spools.items()):
            yield from _file(f"annotations/instances_{split}.json", spool, settings)


def _temporary() -> tempfile.SpooledTemporaryFile[bytes]:
    return tempfile.SpooledTemporaryFile(8 * _CHUNK)


def _add(spool: _Spool, placed: Placed, settings: WriteSettings) -> None:
    spool.images.count += 1
    spool.images.add(_image_row(placed, spool.images.count))
    for lesion in placed.item.truth.lesions:
        spool.annotations.count += 1
        numbers = (spool.annotations.count, spool.images.count)
        spool.annotations.add(_annotation_row(lesion, placed.item.record.size, numbers, settings))


def _file(path: str, spool: _Spool, settings: WriteSettings) -> Iterator[Piece]:
    categories = orjson.dumps(_categories(settings))
    yield Piece(path, b'{"info":{"description":"dermloop export"},"licenses":[],"categories":' + categories)
    for name, rows in (("images", spool.images), ("annotations", spool.annotations)):
        yield Piece(path, f',\n"{name}":['.encode())
        rows.flush()
        rows.stream.seek(0)
        while chunk := rows.stream.read(_CHUNK):
            yield Piece(path, chunk)
        yield Piece(path, b"]")
    yield Piece(path, b"}\n")


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
    record = placed.item.record
    row: dict[str, Any] = {
        "id": number,
        "file_name": placed.name,
        "width": record.size.width,
        "height": record.size.height,
    }
    facts = manifest.encode_record(record)
    for known in ("uri", "size", "image_id"):
        facts.pop(known, None)
    if facts.get("original_name") == placed.name:
        del facts["original_name"]
    said = manifest.encode_answer(placed.item.truth)
    del said["image_id"]
    extra = {name: found for name, found in (("record", facts), ("truth", said)) if found and found != _PLAIN}
    return {**row, EXTRA: extra} if extra else row


_PLAIN = {"finding": "lesions", "level": "technician"}


def _annotation_row(
    lesion: Lesion, size: ImageSize, numbers: tuple[int, int], settings: WriteSettings
) -> dict[str, Any]:
    shape = lesion.shape
    box = lesion.box.clipped(size)
    x, y, width, height = box.x_min, box.y_min, box.width, box.height
    row: dict[str, Any] = {
        "id": numbers[0],
        "image_id": numbers[1],
        "category_id": _category(lesion, settings.taxonomy),
        "bbox": [x, y, width, height],
        "area": width * height if shape is None else _area(shape, box, size),
        "iscrowd": int(CROWD in lesion.attributes),
        "segmentation": box_ring(box) if shape is None else encode_segmentation(shape, size),
    }
    if lesion.score is not None:
        row["score"] = lesion.score
    if settings.keypoints and lesion.keypoints:
        row["keypoints"], row["num_keypoints"] = _keypoints(lesion, settings.keypoints), len(lesion.keypoints)
    if (extra := _extra(lesion)) is not None:
        row[EXTRA] = extra
    return row


def _extra(lesion: Lesion) -> dict[str, Any] | None:
    """What COCO has no word for; None for an outline without any."""
    extra: dict[str, Any] = {} if lesion.shape is not None else {"box": True}
    if lesion.region_id is not None:
        extra["region_id"] = lesion.region_id
    if lesion.origin is not Origin.MANUAL:
        extra["origin"] = lesion.origin.value
    if lesion.probabilities:
        extra["probabilities"] = lesion.probabilities
    if lesion.attributes:
        extra["attributes"] = lesion.attributes
    if isinstance(lesion.shape, RotatedBox):
        extra["turned"] = lesion.shape.angle
    return extra or None


def _area(shape: object, box: PixelBox, size: ImageSize) -> float:
    if isinstance(shape, RleMask):
        return shape.area()
    if isinstance(shape, Polygon):
        return int(shape_to_mask(shape, size).sum()) if shape.holes else shape.area()
    return box.area


def _category(lesion: Lesion, taxonomy: Taxonomy) -> int:
    return _OPEN[lesion.severity] if lesion.diagnosis is None else taxonomy.resolve(lesion.diagnosis).id + 1


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
