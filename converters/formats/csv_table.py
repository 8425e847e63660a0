"""One CSV table: a row for each lesion, in the columns of the HAM10000 family, so that `metadata_csv` reads it again.

Reading takes masks too: a file in the `mask` column becomes the lesion's shape. This is the way in for HAM10000, ISIC
and PAD-UFES-20 folders that carry a `metadata.csv`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from converters.annotation import Confirmation, Finding, Lesion
from converters.dataset import DatasetItem, Split
from converters.errors import AnnotationError, ConversionError
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
from converters.formats.index_table import table_line
from converters.formats.located import address_id, measured
from converters.formats.metadata_csv import WHOLE_IMAGE, MetadataRow, MetadataTable, TableIssue, read_rows
from converters.label_studio.addresses import ImageFolder, parse_address
from converters.pixels import read_mask
from converters.report import Entry, Kind, refused

TABLE = "metadata.csv"
COLUMNS = (
    *("image", "split", "finding", "dx", "bbox_x", "bbox_y", "bbox_w", "bbox_h", "width", "height", "confirm_type"),
    *("age", "sex", "localization", "skin_type", "lesion_id", "patient_id", "device", "source", "consent", "synthetic"),
)
_CONFIRMATIONS = {
    Confirmation.HISTOPATHOLOGY: "histo",
    Confirmation.FOLLOW_UP: "follow_up",
    Confirmation.UNKNOWN: "",
}


def write(items: Iterable[Placed], settings: WriteSettings) -> Iterator[Piece | Picture]:
    """`metadata.csv` and the images beside it; an image without lesion has a row that states its finding."""
    yield Piece(TABLE, table_line(COLUMNS))
    for placed in items:
        lesions = placed.item.truth.lesions
        rows = [cells for lesion in lesions if (cells := _cells(placed, lesion, settings))]
        if lesions and not rows:
            continue
        for cells in rows or [_cells(placed, None, settings)]:
            yield Piece(TABLE, table_line(cells))
        if placed.image is not None:
            yield Picture(f"images/{placed.name}", placed)


def _cells(placed: Placed, lesion: Lesion | None, settings: WriteSettings) -> list[object]:
    record, split = placed.item.record, placed.item.split
    box: Sequence[object] = ("", "", "", "")
    code, finding = "", "" if placed.item.truth.finding is Finding.LESIONS else placed.item.truth.finding.value
    if lesion is not None:
        inside = lesion.box.clipped(record.size)
        if inside.area <= 0 or lesion.diagnosis is None:
            return []
        code, finding = settings.taxonomy.resolve(lesion.diagnosis).code, ""
        if WHOLE_IMAGE not in lesion.attributes:
            box = (repr(inside.x_min), repr(inside.y_min), repr(inside.width), repr(inside.height))
    confirmation = _CONFIRMATIONS.get(record.confirmation, record.confirmation.value)
    image = f"{settings.prefix}images/{placed.name}"
    facts = (record.age, record.sex, record.site, record.skin_type, record.lesion_id, record.patient_id)
    consent = None if record.consent is None else str(record.consent).lower()
    rest = (record.device, record.source, consent, "true" if record.synthetic else None)
    size = (record.size.width, record.size.height)
    return [image, split.value if split else "", finding, code, *box, *size, confirmation, *facts, *rest]


def read(source: Path, settings: ReadSettings) -> ReadResult:
    """One item for each image of the table that says anything of it."""
    path = table_of(source)
    table = read_rows(path, settings.taxonomy)
    for issue in table.issues:
        yield _entry(path, issue)
    yield from items_of(table, settings)


def items_of(table: MetadataTable, settings: ReadSettings) -> ReadResult:
    """The items of a table whose images lie in `settings.images`, or in the folder of the table."""
    root = table.path.parent
    folder = settings.images or (root / "images" if (root / "images").is_dir() else None)
    images = ImageFolder.scan(folder) if folder else None
    for row in table.rows.values():
        try:
            yield _item(row, table.path, images)
        except ConversionError as error:
            yield refused(error, f"{table.path.name}, line {row.line}")


def table_of(source: Path) -> Path:
    """The table that a file or folder stands for."""
    return source / TABLE if source.is_dir() else source


def _entry(path: Path, issue: TableIssue) -> Entry:
    minor = issue.column in ("", issue.value) or "unknown column" in issue.reason
    kind = Kind.EXPECTED if minor else Kind.REFUSED
    return Entry(kind, f"{path.name}, line {issue.line} {issue.image}".strip(), issue.column, issue.value, issue.reason)


def _item(row: MetadataRow, path: Path, images: ImageFolder | None) -> DatasetItem | Entry:
    item = f"{path.name}, line {row.line}, {row.image}"
    image_id, uri, size = address_id(row.image), row.image, row.size
    if images is not None:
        file = images.find(parse_address(row.image, item), item)
        image_id, size = measured(file, item)
        uri = str(file)
    if size is None:
        raise AnnotationError(item, "no size", "width and height, or the image", "Name the images with --images.")
    mask = None
    if row.mask:
        mask = read_mask(path.parent / row.mask, item)
    truth = row.truth(image_id, size, mask)
    if truth is None:
        return Entry(Kind.SKIPPED, item, "truth", "", "the row names neither lesion nor finding")
    record = row.record(image_id, uri, size)
    said = dict(record.extra)
    split = said.pop("split", None)
    record = replace(record, extra=tuple(sorted(said.items())))
    return DatasetItem(record, truth, Split(split) if split in tuple(Split) else None)


def sniff(source: Path) -> bool:
    """Whether a file or folder holds a table with an image column."""
    path = table_of(source)
    if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
        return False
    try:
        return bool(read_rows(path).rows)
    except ConversionError:
        return False


CSV = Format(
    "csv",
    "metadata.csv with a row for each lesion; reads HAM10000, ISIC and PAD-UFES-20 folders with masks",
    sniff,
    read,
    write,
    Carries(
        Shapes.BOX,
        frozenset(
            {"finding", "patient_id", "lesion_id", "age", "sex", "skin_type", "confirmation", "consent", "synthetic"}
            | {"site", "device", "source"}
        ),
        whole_image=True,
    ),
)
