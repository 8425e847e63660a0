"""COCO: `annotations/instances_<split>.json` with boxes, polygons, run-length masks, keypoints and crowds.

Categories are the taxonomy's classes under id + 1, whatever occurs in the data; a lesion without a diagnosis has a
category of its own from 1001 on. What COCO has no word for stands under a `dermloop` key that other programs ignore.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import orjson

from converters import manifest
from converters.annotation import Annotation, Finding, Lesion, Origin
from converters.dataset import DatasetItem, Split
from converters.errors import AnnotationError, ConversionError, DatasetError, GeometryError
from converters.formats.coco_masks import decode_segmentation, encode_segmentation
from converters.formats.contract import (
    ALL_FIELDS,
    Carries,
    Format,
    Picture,
    Piece,
    Placed,
    ReadResult,
    ReadSettings,
    Shapes,
    WriteSettings,
)
from converters.formats.located import address_id, measured, require_size
from converters.geometry import ImageSize, KeyPoint, PixelBox, Polygon, RleMask, RotatedBox
from converters.label_studio import controls
from converters.label_studio.addresses import ImageFolder, parse_address
from converters.raster import shape_to_mask
from converters.report import refused
from converters.taxonomy import Diagnosis, Taxonomy

_OPEN_START = 1001
_OPEN = {severity: _OPEN_START + index for index, severity in enumerate(controls.OPEN_LABELS)}
_EXTRA = "dermloop"
_CROWD = ("iscrowd", "1")
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
    return {**row, _EXTRA: extra} if extra else row


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
        "iscrowd": int(_CROWD in lesion.attributes),
        "segmentation": _corners(box) if shape is None else encode_segmentation(shape, size),
    }
    if lesion.score is not None:
        row["score"] = lesion.score
    if settings.keypoints and lesion.keypoints:
        row["keypoints"], row["num_keypoints"] = _keypoints(lesion, settings.keypoints), len(lesion.keypoints)
    if (extra := _extra(lesion)) is not None:
        row[_EXTRA] = extra
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


def _corners(box: PixelBox) -> list[list[float]]:
    return [[box.x_min, box.y_min, box.x_max, box.y_min, box.x_max, box.y_max, box.x_min, box.y_max]]


def _category(lesion: Lesion, taxonomy: Taxonomy) -> int:
    return _OPEN[lesion.severity] if lesion.diagnosis is None else taxonomy.resolve(lesion.diagnosis).id + 1


def _keypoints(lesion: Lesion, names: Iterable[str]) -> list[float]:
    points = {point.name: point for point in lesion.keypoints}
    flat: list[float] = []
    for name in names:
        point = points.get(name)
        flat += [point.x, point.y, 2 if point.visible else 1] if point else [0, 0, 0]
    return flat


def read(source: Path, settings: ReadSettings) -> ReadResult:
    """One item for each image of a COCO file, or of every instances file of a folder (its name tells the split)."""
    root = source if source.is_dir() else source.parent
    for path in _files(source):
        split = next((split for split in Split if split.value in path.stem.split("_")[-1]), None)
        yield from _read_file(path, split, root, settings)


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    found = sorted(source.glob("annotations/*.json")) or sorted(source.glob("*.json"))
    if not found:
        raise DatasetError(str(source), "no JSON file", "annotations/*.json", "Name the COCO file itself.")
    return found


def _read_file(path: Path, split: Split | None, root: Path, settings: ReadSettings) -> ReadResult:
    data = _load(path)
    categories = _read_categories(data, settings.taxonomy, path)
    folder = settings.images or (root if (root / "images").is_dir() else None)
    images = ImageFolder.scan(folder) if folder else None
    rows = _by_image(data, path)
    for number, row in enumerate(_list(data, "images", path), 1):
        item = f"{path}, image {row.get('id', f'number {number}')}"
        try:
            yield _item(row, rows.pop(row.get("id"), ()), split, images, categories, item)
        except ConversionError as error:
            yield refused(error, item)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            expected = f"a complete image and its annotations ({type(error).__name__} {error})"
            yield refused(AnnotationError(item, str(row)[:80], expected, "Export the dataset again."))
    for number, lost in rows.items():
        value = f"{len(lost)} annotations"
        yield refused(
            AnnotationError(f"{path}, image_id {number}", value, "an image with this id", "Restore the image row.")
        )


def _load(path: Path) -> Mapping[str, Any]:
    try:
        data = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise DatasetError(str(path), str(error), "an intact JSON file", "Export the dataset again.") from error
    if not isinstance(data, dict):
        raise DatasetError(str(path), type(data).__name__, "an object with images and annotations", "Name a COCO file.")
    return data


def _list(data: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    found = data.get(key)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DatasetError(f"{path}, {key}", str(found)[:80], "a list of objects", "Name a COCO instances file.")
    return found


def _by_image(data: Mapping[str, Any], path: Path) -> dict[Any, list[dict[str, Any]]]:
    grouped: dict[Any, list[dict[str, Any]]] = {}
    ids: set[Any] = set()
    for row in _list(data, "annotations", path):
        key, image = row.get("id"), row.get("image_id")
        if not isinstance(key, int | str) or key in ids or not isinstance(image, int | str):
            raise DatasetError(f"{path}, annotation id", key, "an id of its own for each", "Number them again.")
        ids.add(key)
        grouped.setdefault(image, []).append(row)
    images = [row.get("id") for row in _list(data, "images", path)]
    if any(not isinstance(number, int | str) for number in images) or len(set(images)) != len(images):
        raise DatasetError(f"{path}, image ids", len(images), "an id of its own for each image", "Number them again.")
    return grouped


@dataclass(frozen=True, slots=True)
class _Category:
    diagnosis: Diagnosis | None
    severity: str | None
    keypoints: tuple[str, ...]


def _read_categories(data: Mapping[str, Any], taxonomy: Taxonomy, path: Path) -> dict[Any, _Category]:
    severities = {label: severity for severity, label in controls.OPEN_LABELS.items()}
    found: dict[Any, _Category] = {}
    for row in _list(data, "categories", path):
        number, name = row.get("id"), str(row.get("name"))
        if not isinstance(number, int | str) or number in found:
            raise DatasetError(f"{path}, category id", number, "an id of its own for each", "Number them again.")
        diagnosis = None if name in severities else taxonomy.resolve(name, f"{path}, category {number}")
        severity = diagnosis.severity.value if diagnosis else severities[name]
        found[number] = _Category(diagnosis, severity, tuple(map(str, row.get("keypoints") or ())))
    return found


def _item(
    row: Mapping[str, Any],
    annotations: Iterable[Mapping[str, Any]],
    split: Split | None,
    images: ImageFolder | None,
    categories: Mapping[Any, _Category],
    item: str,
) -> DatasetItem:
    size = ImageSize(int(row["width"]), int(row["height"]))
    name = str(row["file_name"])
    image_id, uri = address_id(name), name
    if images is not None:
        path = images.find(parse_address(name, item), item)
        image_id, found = measured(path, item)
        require_size(path, found, size, item)
        uri = str(path)
    extra = row.get(_EXTRA) or {}
    facts = {"original_name": Path(name).name, **(extra.get("record") or {})}
    record = manifest.decode_record({**facts, "image_id": image_id, "uri": uri, "size": [size.width, size.height]})
    lesions = tuple(_lesion(found, size, categories, f"{item}, annotation {found.get('id')}") for found in annotations)
    finding = Finding.LESIONS if lesions else Finding.LESION_FREE
    said = extra.get("truth")
    if said is None:
        return DatasetItem(record, Annotation(image_id, finding, lesions, author="coco"), split)
    truth = manifest.decode_annotation({**said, "image_id": image_id})
    return DatasetItem(record, replace(truth, lesions=lesions), split)


def _lesion(row: Mapping[str, Any], size: ImageSize, categories: Mapping[Any, _Category], item: str) -> Lesion:
    category = categories.get(row.get("category_id"))
    if category is None:
        raise AnnotationError(item, row.get("category_id"), "a category of the file", "Restore the category.")
    x, y, width, height = (float(part) for part in row["bbox"])
    box = _inside(PixelBox(x, y, x + width, y + height), size, item)
    extra = row.get(_EXTRA) or {}
    shape = None if extra.get("box") else decode_segmentation(row.get("segmentation"), size, item)
    if isinstance(extra.get("turned"), int | float) and isinstance(shape, Polygon) and len(shape.outline) == 4:
        shape = _turned(shape, float(extra["turned"]))
    elif not extra and isinstance(shape, Polygon) and {*shape.outline} == {*_pairs(_corners(box)[0])}:
        shape = None
    facts = {name: value for name, value in extra.items() if name not in ("box", "turned")}
    lesion = manifest.decode_lesion({**facts, "box": [box.x_min, box.y_min, box.x_max, box.y_max]})
    attributes = lesion.attributes
    if row.get("iscrowd") and _CROWD not in attributes:
        attributes = (*attributes, _CROWD)
    return replace(
        lesion,
        box=shape.envelope() or box if shape is not None and not isinstance(shape, PixelBox) else box,
        shape=shape,
        diagnosis=category.diagnosis.code if category.diagnosis else None,
        severity=category.severity,
        score=row.get("score"),
        attributes=attributes,
        keypoints=_read_keypoints(row.get("keypoints") or (), category.keypoints, item),
    )


def _inside(box: PixelBox, size: ImageSize, item: str) -> PixelBox:
    clipped = box.clipped(size)
    if abs(clipped.area - box.area) > 1e-6 + 0.01 * (box.width + box.height) or (box.area > 0 and clipped.area == 0):
        raise GeometryError(f"{item}, bbox", box, f"a box inside {size.width}×{size.height}", "Correct the box.")
    return clipped


def _turned(shape: Polygon, angle: float) -> RotatedBox:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = shape.outline
    width, height = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5, ((dx - ax) ** 2 + (dy - ay) ** 2) ** 0.5
    return RotatedBox((ax + cx) / 2, (ay + cy) / 2, width, height, angle)


def _pairs(flat: list[float]) -> list[tuple[float, float]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _read_keypoints(flat: Iterable[float], names: tuple[str, ...], item: str) -> tuple[KeyPoint, ...]:
    numbers = [float(value) for value in flat]
    if len(numbers) != 3 * len(names) and numbers:
        raise AnnotationError(f"{item}, keypoints", len(numbers), f"{3 * len(names)} numbers", "Correct the points.")
    triples = zip(names, numbers[::3], numbers[1::3], numbers[2::3], strict=False)
    return tuple(KeyPoint(x, y, name, seen == 2) for name, x, y, seen in triples if seen)


def sniff(source: Path) -> bool:
    """Whether a file, or the JSON files of a folder, look like COCO instances."""
    try:
        path = _files(source)[0]
        with path.open("rb") as stream:
            head = stream.read(4096)
    except (DatasetError, OSError):
        return False
    return head.lstrip()[:1] == b"{" and any(
        b'"%s"' % key in head for key in (b"categories", b"images", b"annotations")
    )


COCO = Format(
    "coco",
    "COCO instances: boxes, polygons, masks with holes, keypoints, crowds",
    sniff,
    read,
    write,
    Carries(Shapes.PIXELS, ALL_FIELDS - {"finding"}, keypoints=True),
)
