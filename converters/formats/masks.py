"""Mask pictures: one PNG for each lesion, or one index picture for each image whose pixel values are class ids + 1."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

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
from converters.geometry import ImageSize, RleMask
from converters.images import opened
from converters.pixels import mask_png, read_mask
from converters.raster import region, shape_to_mask
from converters.report import refused
from converters.taxonomy import Taxonomy

INDEX = "masks.csv"
INDEX_MASKS = "index_masks.csv"
_Drawn: TypeAlias = Callable[[Path, Iterable[Mapping[str, str]], ImageSize, Taxonomy], tuple[Lesion, ...]]
_COLUMNS = ("image", "mask", "dx", "split", "width", "height")


def write_masks(items: Iterable[Placed], settings: WriteSettings) -> Iterator[Piece | Picture]:
    """`masks/<stem>-<number>.png` for each lesion, and `masks.csv` that says which is whose."""
    yield Piece(INDEX, table_line(_COLUMNS))
    for placed in items:
        size, written = placed.item.record.size, 0
        for lesion in placed.item.truth.lesions:
            mask = shape_to_mask(region(lesion), size)
            if lesion.diagnosis is None or not mask.any():
                continue
            written += 1
            path = f"masks/{placed.stem}-{written}.png"
            yield Piece(path, mask_png(mask))
            yield Piece(INDEX, _row(placed, path, settings.taxonomy.resolve(lesion.diagnosis).code))
        if placed.item.truth.lesions and not written:
            continue
        if not written:
            yield Piece(INDEX, _row(placed, "", ""))
        if placed.image is not None:
            yield Picture(f"images/{placed.name}", placed)


def write_index(items: Iterable[Placed], settings: WriteSettings) -> Iterator[Piece | Picture]:
    """`masks/<stem>.png` for each image: 0 is skin, id + 1 a class; the more urgent of two regions shows."""
    yield Piece(INDEX_MASKS, table_line(_COLUMNS))
    for placed in items:
        path, found = f"masks/{placed.stem}.png", class_map(placed.item, settings.taxonomy)
        if placed.item.truth.lesions and not found.any():
            continue
        yield Piece(path, index_png(found, settings.taxonomy))
        yield Piece(INDEX_MASKS, _row(placed, path, ""))
        if placed.image is not None:
            yield Picture(f"images/{placed.name}", placed)


def class_map(item: DatasetItem, taxonomy: Taxonomy) -> NDArray[np.uint8]:
    """Class id + 1 of each pixel, 0 outside every lesion; of overlapping lesions the more urgent one shows."""
    size = item.record.size
    found = np.zeros((size.height, size.width), dtype=np.uint8)
    known = [(taxonomy.resolve(lesion.diagnosis), lesion) for lesion in item.truth.lesions if lesion.diagnosis]
    for diagnosis, lesion in sorted(known, key=lambda pair: (pair[0].severity.rank, pair[0].id)):
        found[shape_to_mask(region(lesion), size)] = diagnosis.id + 1
    return found


def palette(taxonomy: Taxonomy) -> tuple[tuple[int, int, int], ...]:
    """A colour for the background (black) and for each class, by id; a class keeps its colour when others are added."""
    numbers = range(1, len(taxonomy.codes) + 1)
    return ((0, 0, 0), *((37 * n % 200 + 55, 83 * n % 200 + 55, 151 * n % 200 + 55) for n in numbers))


def index_png(found: NDArray[np.uint8], taxonomy: Taxonomy) -> bytes:
    """PNG bytes of a class map with the classes' colours as palette."""
    image = Image.frombytes("P", (found.shape[1], found.shape[0]), found.tobytes())
    image.putpalette([part for colour in palette(taxonomy) for part in colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def lesions_of(found: NDArray[np.uint8], taxonomy: Taxonomy, item: str) -> tuple[Lesion, ...]:
    """One lesion for each class in a class map; raises AnnotationError naming `item` for a value beyond the classes."""
    lesions = []
    for value in np.unique(found[found > 0]).tolist():
        if value > len(taxonomy.codes):
            raise AnnotationError(item, value, f"values from 0 to {len(taxonomy.codes)}", "Name the right --taxonomy.")
        lesions.append(masked(RleMask.from_array(found == value), taxonomy.codes[value - 1], taxonomy))
    return tuple(lesions)


def masked(mask: RleMask, code: str, taxonomy: Taxonomy) -> Lesion:
    """The lesion of a mask that holds at least one pixel."""
    box = mask.envelope()
    assert box is not None
    return Lesion(box, code, taxonomy.resolve(code).severity.value, shape=mask)


def read_masks(source: Path, settings: ReadSettings) -> ReadResult:
    """One item for each image of `masks.csv`."""
    grouped = read_table(source / INDEX if source.is_dir() else source, _COLUMNS)
    yield from _items(source, grouped, settings, _lesion_masks)


def read_index(source: Path, settings: ReadSettings) -> ReadResult:
    """One item for each image of `index_masks.csv`."""
    grouped = read_table(source / INDEX_MASKS if source.is_dir() else source, _COLUMNS)
    yield from _items(source, grouped, settings, _index_mask)


def _items(
    source: Path, grouped: Mapping[str, list[Mapping[str, str]]], settings: ReadSettings, lesions: _Drawn
) -> ReadResult:
    root = source if source.is_dir() else source.parent
    for image, rows in grouped.items():
        try:
            first = rows[0]
            size = ImageSize(int(first["width"]), int(first["height"]))
            path = root / image
            image_id, uri = address_id(image), image
            if path.is_file():
                image_id, found = measured(path, image)
                uri = str(path)
                if found != size:
                    raise ImageError(f"{image}, size", size, f"{found}", "Correct the table.")
            record = ImageRecord(image_id, uri, size, original_name=Path(image).name)
            drawn = lesions(root, rows, size, settings.taxonomy)
            finding = Finding.LESIONS if drawn else Finding.LESION_FREE
            split = Split(first["split"]) if first["split"] in tuple(Split) else None
            yield DatasetItem(record, Annotation(image_id, finding, drawn, author="masks"), split)
        except ConversionError as error:
            yield refused(error, image)
        except ValueError as error:
            yield refused(AnnotationError(image, str(error), "width and height in pixels", "Correct the table."))


def _lesion_masks(
    root: Path, rows: Iterable[Mapping[str, str]], size: ImageSize, taxonomy: Taxonomy
) -> tuple[Lesion, ...]:
    found = []
    for row in rows:
        if row["mask"]:
            mask = read_mask(root / row["mask"], row["mask"])
            _require(mask.size, size, row["mask"])
            found.append(masked(mask, taxonomy.resolve(row["dx"], row["mask"]).code, taxonomy))
    return tuple(found)


def _index_mask(
    root: Path, rows: Iterable[Mapping[str, str]], size: ImageSize, taxonomy: Taxonomy
) -> tuple[Lesion, ...]:
    (row, *others) = rows
    if others:
        raise AnnotationError(
            row["image"], f"{len(others) + 1} rows", "one index mask for an image", "Restore the table."
        )
    path = root / row["mask"]
    values = read_values(path)
    _require(ImageSize(values.shape[1], values.shape[0]), size, path.name)
    return lesions_of(values, taxonomy, path.name)


def read_values(path: Path) -> NDArray[np.uint8]:
    """The stored values of a palette or grey PNG, not its colours; raises ImageError naming the file."""
    try:
        with path.open("rb") as stream:
            image = opened(stream)
            if image.mode not in ("P", "L"):
                raise ImageError(str(path), image.mode, "a palette or grey picture", "Save the class numbers.")
            return np.asarray(image, dtype=np.uint8)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise ImageError(str(path), str(error), "a readable PNG file", "Restore the file.") from error


def _require(found: ImageSize, size: ImageSize, item: str) -> None:
    if found != size:
        raise ImageError(item, found, f"{size}, the image's size", "Export the masks again.")


def _row(placed: Placed, mask: str, code: str) -> bytes:
    size, split = placed.item.record.size, placed.item.split
    return table_line((f"images/{placed.name}", mask, code, split.value if split else "", size.width, size.height))


MASKS = Format(
    "masks",
    "a 1-bit PNG for each lesion, and masks.csv",
    lambda source: (source / INDEX).is_file(),
    read_masks,
    write_masks,
    Carries(Shapes.PIXELS, boxes_as_pixels=True),
)
INDEXED = Format(
    "masks-index",
    "one PNG for each image whose pixel values are class ids + 1",
    lambda source: (source / INDEX_MASKS).is_file(),
    read_index,
    write_index,
    Carries(Shapes.PIXELS, boxes_as_pixels=True, instances=False),
)
