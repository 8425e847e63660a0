"""COCO files, read: categories by name, several polygons as one mask, runs packed or plain; see `coco` for writing."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters import manifest
from converters.annotation import Annotation, Finding, Lesion
from converters.dataset import DatasetItem, Split
from converters.errors import AnnotationError, ConversionError, DatasetError, GeometryError
from converters.formats.coco_masks import decode_segmentation
from converters.formats.contract import (
    ReadResult,
    ReadSettings,
)
from converters.formats.large_json import LargeObject, open_object
from converters.formats.located import address_id, measured, require_size
from converters.geometry import ImageSize, KeyPoint, PixelBox, Polygon, RotatedBox, require_near
from converters.label_studio import controls
from converters.label_studio.addresses import ImageFolder, parse_address
from converters.report import refused
from converters.taxonomy import Diagnosis, Taxonomy

EXTRA = "dermloop"
CROWD = ("iscrowd", "1")
_ROUNDED = 2.0
"""Pixels by which `bbox` may differ from the box around the segmentation, whatever its size."""
_SAME = 0.5
"""Overlap from which two boxes are taken for one that was measured in two ways."""


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
    """One item for each image; the file stays on disk, and memory holds the numbers of each image's rows."""
    folder = settings.images or (root if (root / "images").is_dir() else None)
    images = ImageFolder.scan(folder) if folder else None
    with open_object(path) as data:
        categories = _read_categories(_listed(data, "categories"), settings.taxonomy, path)
        known, rows = _image_ids(data), _by_image(data)
        for number, row in enumerate(data.rows("images")):
            item = f"{path}, image {known[number]}"
            annotations = (data.row("annotations", place) for place in rows.pop(known[number], ()))
            try:
                yield _item(row, annotations, split, images, categories, item)
            except ConversionError as error:
                yield refused(error, item)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                expected = f"a complete image and its annotations ({type(error).__name__} {error})"
                yield refused(AnnotationError(item, str(row)[:80], expected, "Export the dataset again."))
        for number, lost in rows.items():
            item, value = f"{path}, image_id {number}", f"{len(lost)} annotations"
            yield refused(AnnotationError(item, value, "an image with this id", "Restore the image row."))


def _listed(data: LargeObject, key: str) -> Iterator[dict[str, Any]]:
    """The objects of a list that has to be there."""
    if data.plain.get(key) != []:
        raise DatasetError(
            f"{data.path}, {key}", str(data.plain.get(key))[:80], "a list of objects", "Name a COCO instances file."
        )
    return data.rows(key)


def _by_image(data: LargeObject) -> dict[Any, array[int]]:
    """The numbers of the annotations of each image."""
    grouped: dict[Any, array[int]] = {}
    ids: set[Any] = set()
    for number, row in enumerate(_listed(data, "annotations")):
        key, image = row.get("id"), row.get("image_id")
        if not isinstance(key, int | str) or key in ids or not isinstance(image, int | str):
            raise DatasetError(f"{data.path}, annotation id", key, "an id of its own for each", "Number them again.")
        ids.add(key)
        grouped.setdefault(image, array("I")).append(number)
    return grouped


def _image_ids(data: LargeObject) -> list[int | str]:
    found: dict[int | str, None] = {}
    for number, row in enumerate(_listed(data, "images"), 1):
        key = row.get("id")
        if not isinstance(key, int | str) or key in found:
            expected = "an id of its own for each image"
            raise DatasetError(f"{data.path}, image {number}, id", key, expected, "Number them again.")
        found[key] = None
    return list(found)


@dataclass(frozen=True, slots=True)
class _Category:
    diagnosis: Diagnosis | None
    severity: str | None
    keypoints: tuple[str, ...]


def _read_categories(rows: Iterable[Mapping[str, Any]], taxonomy: Taxonomy, path: Path) -> dict[Any, _Category]:
    severities = {label: severity for severity, label in controls.OPEN_LABELS.items()}
    found: dict[Any, _Category] = {}
    for row in rows:
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
    extra = row.get(EXTRA) or {}
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
    extra = row.get(EXTRA) or {}
    shape = None if extra.get("box") else decode_segmentation(row.get("segmentation"), size, item)
    if isinstance(extra.get("turned"), int | float) and isinstance(shape, Polygon) and len(shape.outline) == 4:
        shape = _turned(shape, float(extra["turned"]))
    elif not extra and isinstance(shape, Polygon) and {*shape.outline} == {*_pairs(box_ring(box)[0])}:
        shape = None
    surrounded = None if shape is None or isinstance(shape, PixelBox) else shape.envelope()
    if surrounded is not None:
        require_near(surrounded, size, f"{item}, segmentation")
        _require_agreement(box, surrounded.clipped(size), item)
    facts = {name: value for name, value in extra.items() if name not in ("box", "turned")}
    lesion = manifest.decode_lesion({**facts, "box": [box.x_min, box.y_min, box.x_max, box.y_max]})
    attributes = lesion.attributes
    if row.get("iscrowd") and CROWD not in attributes:
        attributes = (*attributes, CROWD)
    return replace(
        lesion,
        box=surrounded or box,
        shape=shape,
        diagnosis=category.diagnosis.code if category.diagnosis else None,
        severity=category.severity,
        score=row.get("score"),
        attributes=attributes,
        keypoints=_read_keypoints(row.get("keypoints") or (), category.keypoints, size, item),
    )


def _require_agreement(box: PixelBox, around: PixelBox, item: str) -> None:
    """Raises GeometryError where `bbox` is not the box around the region, as when corners are written for sides."""
    off = max(abs(one - other) for one, other in zip(box.edges, around.edges, strict=True))
    if off > _ROUNDED and box.iou(around) < _SAME:
        edges = tuple(round(edge, 1) for edge in around.edges)
        cure = "Write bbox as left, top, width and height."
        raise GeometryError(f"{item}, bbox", box.edges, f"the edges of the segmentation, {edges}", cure)


def _inside(box: PixelBox, size: ImageSize, item: str) -> PixelBox:
    clipped = box.clipped(size)
    if abs(clipped.area - box.area) > 1e-6 + 0.01 * (box.width + box.height) or (box.area > 0 and clipped.area == 0):
        expected = f"left, top, right and bottom inside {size.width}×{size.height} pixels"
        raise GeometryError(f"{item}, bbox", box.edges, expected, "Correct the box.")
    return clipped


def _turned(shape: Polygon, angle: float) -> RotatedBox:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = shape.outline
    width, height = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5, ((dx - ax) ** 2 + (dy - ay) ** 2) ** 0.5
    return RotatedBox((ax + cx) / 2, (ay + cy) / 2, width, height, angle)


def _pairs(flat: list[float]) -> list[tuple[float, float]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _read_keypoints(flat: Iterable[float], names: tuple[str, ...], size: ImageSize, item: str) -> tuple[KeyPoint, ...]:
    numbers = [float(value) for value in flat]
    if len(numbers) != 3 * len(names) and numbers:
        raise AnnotationError(f"{item}, keypoints", len(numbers), f"{3 * len(names)} numbers", "Correct the points.")
    triples = zip(names, numbers[::3], numbers[1::3], numbers[2::3], strict=False)
    points = tuple(KeyPoint(x, y, name, seen == 2) for name, x, y, seen in triples if seen)
    for point in points:
        if not (-1 <= point.x <= size.width + 1 and -1 <= point.y <= size.height + 1):
            place, expected = f"{item}, keypoint {point.name}", f"a point inside {size.width}×{size.height} pixels"
            raise GeometryError(place, (point.x, point.y), expected, "Correct the point.")
    return points


def sniff(source: Path) -> bool:
    """Whether a file, or the JSON files of a folder, look like COCO instances."""
    try:
        path = _files(source)[0]
        with path.open("rb") as stream:
            head = stream.read(4096)
    except (DatasetError, OSError):
        return False
    return (
        head.lstrip()[:1] == b"{"
        and b'"source-ref"' not in head
        and any(b'"%s"' % key in head for key in (b"categories", b"images", b"annotations"))
    )


def box_ring(box: PixelBox) -> list[list[float]]:
    """A box as COCO's list of polygons: its four corners."""
    return [[box.x_min, box.y_min, box.x_max, box.y_min, box.x_max, box.y_max, box.x_min, box.y_max]]
