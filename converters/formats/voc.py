"""Pascal VOC: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/<split>.txt`, `labelmap.txt`; a box for each lesion.

Pixels count from one and `xmax` is inclusive: `xmin` is the left edge plus one and `xmax` the right edge; fractions
are kept. A file with a coordinate below one was written by a program that counts from nought, and is read as such.
Source: the VOC 2012 development kit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeTree

from converters.annotation import Annotation, Finding, ImageRecord, Lesion
from converters.dataset import DatasetItem, Split
from converters.errors import AnnotationError, ConversionError, DatasetError
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
    piece,
)
from converters.formats.located import address_id, measured, require_size
from converters.geometry import ImageSize, PixelBox
from converters.label_studio.addresses import ImageFolder, parse_address
from converters.report import refused
from converters.taxonomy import Taxonomy

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


_OBJECT = (
    "  <object><name>%s</name><pose>Unspecified</pose><truncated>%d</truncated><difficult>0</difficult>"
    "<bndbox><xmin>%.10g</xmin><ymin>%.10g</ymin><xmax>%.10g</xmax><ymax>%.10g</ymax></bndbox></object>\n"
)
_escaped = lru_cache(1024)(escape)


def write(items: Iterable[Placed], settings: WriteSettings) -> Iterator[Piece | Picture]:
    """One XML file for each item, the images beside them, and a list of stems for each split.

    An image none of whose lesions can be written is left out: an empty file would call it lesion-free.
    """
    for placed in items:
        objects = [_object(lesion, placed.item.record.size, settings.taxonomy) for lesion in placed.item.truth.lesions]
        if objects and not any(objects):
            continue
        stem = placed.stem
        yield piece(f"Annotations/{stem}.xml", _xml(placed, "".join(objects)).encode())
        yield piece(f"ImageSets/Main/{placed.split}.txt", f"{stem}\n".encode())
        if placed.image is not None:
            yield Picture(f"JPEGImages/{placed.name}", placed)
    yield Piece("labelmap.txt", _label_map(settings.taxonomy).encode())


def _label_map(taxonomy: Taxonomy) -> str:
    """The classes, for programs that know those of the VOC challenge only unless they are told others."""
    return "# label:color_rgb:parts:actions\nbackground:::\n" + "".join(f"{code}:::\n" for code in taxonomy.codes)


def _xml(placed: Placed, objects: str) -> str:
    size = placed.item.record.size
    return (
        f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{escape(placed.name)}</filename>\n"
        f"  <size><width>{size.width}</width><height>{size.height}</height><depth>3</depth></size>\n"
        f"  <segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _object(lesion: Lesion, size: ImageSize, taxonomy: Taxonomy) -> str:
    box = lesion.box.clipped(size)
    x0, y0, x1, y1 = box.x_min, box.y_min, box.x_max, box.y_max
    if lesion.diagnosis is None or (x1 - x0) * (y1 - y0) <= 0:
        return ""
    name = _escaped(taxonomy.resolve(lesion.diagnosis).code)
    return _OBJECT % (name, box is not lesion.box, x0 + 1, y0 + 1, x1, y1)


def read(source: Path, settings: ReadSettings) -> ReadResult:
    """One item for each XML file; its split is that of the list in `ImageSets/Main` that names it."""
    root = source.parent if source.name == "Annotations" else source
    splits = _splits(root)
    pictures = settings.images or (root / "JPEGImages" if (root / "JPEGImages").is_dir() else None)
    images = ImageFolder.scan(pictures) if pictures else None
    for path in sorted((root / "Annotations").glob("*.xml")):
        try:
            yield _read_item(path, splits.get(path.stem), images, settings.taxonomy)
        except ConversionError as error:
            yield refused(error, str(path))


def _splits(root: Path) -> dict[str, Split]:
    found: dict[str, Split] = {}
    for split in Split:
        path = root / "ImageSets" / "Main" / f"{split.value}.txt"
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(str(path), str(error), "a list of names in UTF-8", "Write the list again.") from error
        found.update({line.strip(): split for line in lines if line.strip()})
    return found


def _read_item(path: Path, split: Split | None, images: ImageFolder | None, taxonomy: Taxonomy) -> DatasetItem:
    try:
        tree = SafeTree.fromstring(path.read_bytes())
    except (SafeTree.ParseError, DefusedXmlException, OSError, ValueError) as error:
        raise AnnotationError(str(path), str(error), "an intact XML file", "Export the labels again.") from error
    name = tree.findtext("filename") or path.stem
    size = ImageSize(int(_number(tree, "size/width", path)), int(_number(tree, "size/height", path)))
    image_id, uri = address_id(name), name
    if images is not None:
        file = images.find(parse_address(name, str(path)), str(path))
        image_id, found = measured(file, str(path))
        require_size(file, found, size, str(path))
        uri = str(file)
    objects = tree.findall("object")
    starts = [_number(found, f"bndbox/{side}", path) for found in objects for side in ("xmin", "ymin")]
    first = 0 if min(starts, default=1.0) < 1 else 1
    lesions = tuple(
        _lesion(found, size, first, taxonomy, f"{path}, object {number}") for number, found in enumerate(objects, 1)
    )
    finding = Finding.LESIONS if lesions else Finding.LESION_FREE
    record = ImageRecord(image_id, uri, size, original_name=name)
    return DatasetItem(record, Annotation(image_id, finding, lesions, author="voc"), split)


def _lesion(found: Element, size: ImageSize, first: int, taxonomy: Taxonomy, item: str) -> Lesion:
    diagnosis = taxonomy.resolve(found.findtext("name") or "", f"{item}, name")
    edges = [_number(found, f"bndbox/{side}", item) for side in ("xmin", "ymin", "xmax", "ymax")]
    box = PixelBox(edges[0] - first, edges[1] - first, edges[2], edges[3])
    clipped = box.clipped(size)
    if clipped.area <= 0 or max(abs(box.width - clipped.width), abs(box.height - clipped.height)) > 1:
        raise AnnotationError(f"{item}, bndbox", edges, f"a box inside {size.width}×{size.height}", "Correct the box.")
    return Lesion(clipped, diagnosis.code, diagnosis.severity.value)


def _number(parent: Element, path: str, item: object) -> float:
    text = parent.findtext(path)
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise AnnotationError(f"{item}, {path}", text, "a number", "Correct the file.")
    return number


def sniff(source: Path) -> bool:
    """Whether a folder holds `Annotations/*.xml`."""
    root = source.parent if source.name == "Annotations" else source
    return (root / "Annotations").is_dir() and any((root / "Annotations").glob("*.xml"))


VOC = Format("voc", "Pascal VOC: one XML file of boxes for each image", sniff, read, write, Carries(Shapes.BOX))
