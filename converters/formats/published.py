"""Published image sets in the shape their publishers give them: tables under other names, masks in other folders."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from converters.annotation import Annotation, Finding
from converters.dataset import DatasetItem
from converters.errors import AnnotationError, ConversionError, DatasetError
from converters.formats.contract import Format, ReadResult, ReadSettings
from converters.formats.located import measured
from converters.formats.metadata_csv import MetadataRow
from converters.formats.metadata_values import parse_cells
from converters.label_studio.addresses import ImageAddress, ImageFolder
from converters.pixels import read_mask
from converters.report import Entry, Kind, refused

Cells = Mapping[str, str]
_SUFFIXES = (".jpg", ".png", ".jpeg", ".bmp", ".JPG")


@dataclass(frozen=True, slots=True)
class Published:
    """How one published set is laid out: its table, the columns that state facts, and where masks are."""

    name: str
    summary: str
    tables: tuple[str, ...]
    columns: Mapping[str, str]
    masks: tuple[str, ...] = ()
    delimiter: str = ","
    facts: Callable[[Cells], Mapping[str, str]] = field(default=lambda cells: {})


def _one_hot(cells: Cells) -> dict[str, str]:
    chosen = [name for name in _ISIC_CLASSES if cells.get(name, "").startswith("1")]
    return {"dx": _ISIC_CLASSES[chosen[0]]} if len(chosen) == 1 else {}


def _pad(cells: Cells) -> dict[str, str]:
    return {"confirmation": "biopsy"} if cells.get("biopsed") == "True" else {"confirmation": "clinical consensus"}


def _ph2(cells: Cells) -> dict[str, str]:
    codes = {"0": "nv", "1": "nv", "2": "mel"}
    found = codes.get(cells.get("Clinical Diagnosis", ""))
    return {"dx": found} if found else {}


def _ddi(cells: Cells) -> dict[str, str]:
    return {"extra:note": f"skin types {cells['skin_tone']}"} if cells.get("skin_tone") else {}


def _fitzpatrick(cells: Cells) -> dict[str, str]:
    scale = cells.get("fitzpatrick_scale", "")
    return {} if scale in ("", "-1") else {"skin_type": scale}


_ISIC_CLASSES = {
    "MEL": "mel",
    "NV": "nv",
    "BCC": "bcc",
    "AK": "akiec",
    "AKIEC": "akiec",
    "BKL": "bkl",
    "DF": "df",
    "VASC": "vasc",
}
_HAM = {
    "image_id": "image",
    "dx": "dx",
    "dx_type": "confirmation",
    "age": "age",
    "sex": "sex",
    "localization": "site",
    "lesion_id": "lesion_id",
}
_ISIC = {
    "image": "image",
    "age_approx": "age",
    "anatom_site_general": "site",
    "lesion_id": "lesion_id",
    "gender": "sex",
    "sex": "sex",
}
_PAD = {
    "img_id": "image",
    "diagnostic": "dx",
    "age": "age",
    "gender": "sex",
    "region": "site",
    "fitspatrick": "skin_type",
    "patient_id": "patient_id",
    "lesion_id": "lesion_id",
}
_SEGMENTATION = ("{stem}_segmentation.png", "{stem}_Segmentation.png")
SETS = (
    Published(
        "ham10000",
        "HAM10000 as published: HAM10000_metadata and segmentation masks",
        ("HAM10000_metadata", "HAM10000_metadata.csv"),
        _HAM,
        _SEGMENTATION,
    ),
    Published(
        "isic",
        "ISIC challenge: ground truth and metadata tables, segmentation masks",
        ("*Training_GroundTruth.csv", "*Training_Metadata.csv"),
        _ISIC,
        _SEGMENTATION,
        facts=_one_hot,
    ),
    Published("pad-ufes-20", "PAD-UFES-20: metadata.csv with img_id", ("*metadata.csv",), _PAD, facts=_pad),
    Published(
        "ph2",
        "PH2: PH2_dataset.txt and lesion masks",
        ("PH2_dataset.txt",),
        {"Name": "image"},
        ("{stem}_lesion.bmp", "{stem}_lesion.png"),
        "|",
        _ph2,
    ),
    Published(
        "fitzpatrick17k",
        "Fitzpatrick17k: labels and skin types by md5hash",
        ("fitzpatrick17k*.csv",),
        {"md5hash": "image", "label": "dx"},
        facts=_fitzpatrick,
    ),
    Published(
        "ddi", "DDI: ddi_metadata.csv", ("ddi_metadata.csv",), {"DDI_file": "image", "disease": "dx"}, facts=_ddi
    ),
)
"""The published sets that can be read as they are; a `metadata.csv` of the common columns is read by `csv`."""


def read(source: Path, settings: ReadSettings, entry: Published) -> ReadResult:
    """One item for each image of the set that is at hand and whose table names a diagnosis of the taxonomy."""
    root = source if source.is_dir() else source.parent
    images = ImageFolder.scan(settings.images or root)
    for name, cells in _merged(source, entry).items():
        item = f"{entry.name}, {name}"
        try:
            yield _item(name, cells, images, settings, entry)
        except ConversionError as error:
            yield refused(error, item)
        except ValueError as error:
            yield refused(AnnotationError(item, str(error), "a readable row", "Correct the table."))


def _item(
    name: str, cells: Cells, images: ImageFolder, settings: ReadSettings, entry: Published
) -> DatasetItem | Entry:
    item = f"{entry.name}, {name}"
    path = _image(name, images)
    if path is None:
        return Entry(Kind.SKIPPED, item, "image", name, "is in the table, but not in the folder")
    facts = {fact: cells[column].strip() for column, fact in entry.columns.items() if cells.get(column)}
    facts.pop("image", None)
    values, errors = parse_cells({**facts, **entry.facts(cells)}, settings.taxonomy)
    if unknown := [error for error in errors if error.column == "dx"]:
        return Entry(Kind.SKIPPED, item, "dx", unknown[0].value, "is no class of the taxonomy; append it to keep it")
    row = MetadataRow(line=0, image=path.name, **values)
    image_id, size = measured(path, item)
    masks = (pattern.format(stem=path.stem) for pattern in entry.masks)
    mask_path = next((images.by_name[mask][0] for mask in masks if mask in images.by_name), None)
    mask = read_mask(mask_path, item) if mask_path else None
    record = row.record(image_id, str(path), size, source=entry.name)
    truth = row.truth(image_id, size, mask, author=entry.name)
    return DatasetItem(record, truth or Annotation(image_id, Finding.NOT_LOOKED_AT))


def _image(name: str, images: ImageFolder) -> Path | None:
    stem = Path(name).stem
    for spelling in (name, *(f"{start}{suffix}" for start in (name, stem) for suffix in _SUFFIXES)):
        if spelling in images.by_name:
            return images.find(ImageAddress("path", spelling), name)
    return None


def _merged(source: Path, entry: Published) -> dict[str, dict[str, str]]:
    """The rows of all tables of the set by image, columns of several tables side by side."""
    paths = [source] if source.is_file() else _tables(source, entry)
    if not paths:
        raise DatasetError(str(source), "no table", " or ".join(entry.tables), "Name the set's folder.")
    key = next(column for column, fact in entry.columns.items() if fact == "image")
    merged: dict[str, dict[str, str]] = {}
    for path in paths:
        for cells in _rows(path, entry):
            if name := cells.get(key, ""):
                merged.setdefault(name, {}).update(cells)
    return merged


def _rows(path: Path, entry: Published) -> Iterator[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(str(path), str(error), "a readable UTF-8 table", "Save it in UTF-8.") from error
    lines = [
        line.strip().strip("|").replace("||", "|") if entry.delimiter == "|" else line for line in text.split("\n")
    ]
    for row in csv.DictReader(io.StringIO("\n".join(lines)), delimiter=entry.delimiter):
        yield {str(name).strip(): cell.strip() for name, cell in row.items() if isinstance(cell, str)}


def _tables(source: Path, entry: Published) -> list[Path]:
    return [path for pattern in entry.tables for path in sorted(source.glob(pattern))]


def sniff(source: Path, entry: Published) -> bool:
    """Whether a file or folder holds the set's table."""
    paths = [source] if source.is_file() else _tables(source, entry)
    key = next(column for column, fact in entry.columns.items() if fact == "image")
    named = any(path.match(pattern) for path in paths for pattern in entry.tables)
    if not named:
        return False
    with paths[0].open("rb") as stream:
        return key.encode() in stream.readline()


def _format(entry: Published) -> Format:
    return Format(entry.name, entry.summary, partial(sniff, entry=entry), partial(read, entry=entry))


PUBLISHED_FORMATS = tuple(_format(entry) for entry in SETS)
