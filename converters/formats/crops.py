"""Pictures sorted into a folder for each class: whole images (YOLO classify), or one crop for each lesion.

Crops keep an index, `crops.csv`, with the lesion's box in the whole image, so that they can be read back; the cells of
the box are empty where the diagnosis is for the whole picture.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from converters.annotation import Annotation, Finding, ImageRecord, Lesion
from converters.dataset import DatasetItem, Split
from converters.errors import AnnotationError, ConversionError, ImageError
from converters.formats.contract import (
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
from converters.formats.index_table import read_table, table_line
from converters.formats.located import address_id, measured
from converters.formats.metadata_csv import WHOLE_IMAGE
from converters.geometry import ImageSize, PixelBox
from converters.images import IMAGE_SUFFIXES, opened
from converters.pixels import crop, exported
from converters.report import refused

INDEX = "crops.csv"
_COLUMNS = ("crop", "image", "dx", "x_min", "y_min", "x_max", "y_max", "split", "width", "height")


def write_crops(items: Iterable[Placed], settings: WriteSettings) -> Iterator[Piece | Picture]:
    """`<split>/<class>/<stem>-<lesion>-<copy>.jpg`: the box grown by the padding, shifted by the jitter.

    The shift depends on the image and the lesion only. Raises ImageError for an image whose bytes are not at hand.
    """
    yield Piece(INDEX, table_line(_COLUMNS))
    for placed in items:
        if placed.image is None:
            raise ImageError(placed.name, placed.item.record.uri, "image bytes", "Name their folder with --images.")
        picture = opened(io.BytesIO(exported(placed.image, placed.redactions)))
        size = placed.item.record.size
        for number, lesion in enumerate(placed.item.truth.lesions, 1):
            box = lesion.box.clipped(size)
            if lesion.diagnosis is None or box.area <= 0:
                continue
            for copy in range(settings.crop_copies):
                path = f"{placed.split}/{lesion.diagnosis}/{placed.stem}-{number}-{copy}.jpg"
                yield Piece(path, crop(picture, _shifted(box, placed, number, copy, settings)))
                whole = WHOLE_IMAGE in lesion.attributes
                edges = ("",) * 4 if whole else (repr(box.x_min), repr(box.y_min), repr(box.x_max), repr(box.y_max))
                split = placed.item.split.value if placed.item.split else ""
                row = (path, placed.name, lesion.diagnosis, *edges, split, size.width, size.height)
                yield Piece(INDEX, table_line(row))


def _shifted(box: PixelBox, placed: Placed, number: int, copy: int, settings: WriteSettings) -> PixelBox:
    padded = box.padded(settings.crop_padding)
    if copy == 0 or not settings.crop_jitter:
        return padded
    seed = hashlib.sha256(f"{placed.item.record.image_id}:{number}:{copy}".encode()).digest()
    dx, dy = np.random.default_rng(list(seed)).uniform(-settings.crop_jitter, settings.crop_jitter, 2)
    return padded.moved(float(dx) * box.width, float(dy) * box.height)


def read_crops(source: Path, settings: ReadSettings) -> ReadResult:
    """One item for each image whose lesions were cut out; its address is its name, its bytes are not at hand."""
    path = source / INDEX if source.is_dir() else source
    for name, rows in read_table(path, _COLUMNS).items():
        try:
            yield _cut_item(name, rows, path, settings)
        except ConversionError as error:
            yield refused(error, str(path))
        except ValueError as error:
            yield refused(AnnotationError(f"{path}, {name}", str(error), "numbers in pixels", "Restore the table."))


def _cut_item(name: str, rows: Iterable[Mapping[str, str]], path: Path, settings: ReadSettings) -> DatasetItem:
    found: dict[tuple[int, PixelBox], Lesion] = {}
    size, split = ImageSize(1, 1), ""
    for row in rows:
        if not (path.parent / row["crop"]).is_file():
            raise ImageError(f"{path}, {name}", row["crop"], "the crop's file", "Restore it.")
        diagnosis = settings.taxonomy.resolve(row["dx"], f"{path}, {name}")
        size, split = ImageSize(int(row["width"]), int(row["height"])), row["split"]
        box = _box(row, size, f"{path}, {name}")
        attributes = () if box else (WHOLE_IMAGE,)
        box = box or PixelBox(0, 0, size.width, size.height)
        found[diagnosis.id, box] = Lesion(box, diagnosis.code, diagnosis.severity.value, attributes=attributes)
    record = ImageRecord(address_id(name), name, size, original_name=name)
    truth = Annotation(record.image_id, Finding.LESIONS, tuple(found.values()), author="crops")
    return DatasetItem(record, truth, Split(split) if split in tuple(Split) else None)


def _box(row: Mapping[str, str], size: ImageSize, item: str) -> PixelBox | None:
    """The box that was cut out, or None where the diagnosis is for the whole picture."""
    cells = [row[edge] for edge in ("x_min", "y_min", "x_max", "y_max")]
    if not any(cells):
        return None
    box = PixelBox(*(float(cell) for cell in cells))
    if box.clipped(size) != box or box.area <= 0:
        raise AnnotationError(item, cells, f"a box inside {size.width}×{size.height}", "Restore it.")
    return box


def write_classify(items: Iterable[Placed], settings: WriteSettings) -> Iterator[Piece | Picture]:
    """`<split>/<class>/<name>` for each image whose lesions share one diagnosis."""
    for split in (Split.TRAIN, Split.VAL):
        for code in settings.taxonomy.codes:
            yield Piece(f"{split.value}/{code}/.keep", b"")
    for placed in items:
        codes = {lesion.diagnosis for lesion in placed.item.truth.lesions if lesion.diagnosis}
        if placed.image is None:
            raise ImageError(placed.name, placed.item.record.uri, "image bytes", "Name their folder with --images.")
        if len(codes) == 1:
            yield Picture(f"{placed.split}/{codes.pop()}/{placed.name}", placed)


def read_classify(source: Path, settings: ReadSettings) -> ReadResult:
    """One item for each picture in a class folder; the lesion covers the image and says so."""
    for split in Split:
        for folder in sorted(path for path in (source / split.value).glob("*") if path.is_dir()):
            for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
                try:
                    found = settings.taxonomy.resolve(folder.name, str(folder))
                    image_id, size = measured(path, str(path))
                except ConversionError as error:
                    yield refused(error)
                    continue
                whole = PixelBox(0, 0, size.width, size.height)
                lesion = Lesion(whole, found.code, found.severity.value, attributes=(WHOLE_IMAGE,))
                record = ImageRecord(image_id, str(path), size, original_name=path.name)
                yield DatasetItem(record, Annotation(image_id, Finding.LESIONS, (lesion,), author="folder"), split)


def _sniff_classify(source: Path) -> bool:
    train = source / Split.TRAIN.value
    folders = [path for path in train.glob("*") if path.is_dir()] if train.is_dir() else []
    return bool(folders) and not (source / INDEX).is_file() and not any(train.glob("*.*"))


CROPS = Format(
    "crops",
    "one JPEG for each lesion in a folder of its class, and crops.csv",
    lambda source: (source / INDEX).is_file(),
    read_crops,
    write_crops,
    Carries(Shapes.BOX, background=False, whole_image=True),
)
CLASSIFY = Format(
    "yolo-classify",
    "whole images in a folder of their class (ultralytics classify)",
    _sniff_classify,
    read_classify,
    write_classify,
    Carries(Shapes.NONE, background=False, instances=False, whole_image=True),
)
