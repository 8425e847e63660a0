"""Published image sets in the shape their publishers give them: tables under other names, masks in other folders."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from converters.taxonomy import Taxonomy

Cells = Mapping[str, str]
_SUFFIXES = (".jpg", ".png", ".jpeg", ".bmp", ".JPG")


@dataclass(frozen=True, slots=True)
class Published:
    """How one published set is laid out: its table, the columns that state facts, and where masks are.

    `columns` are taken over as they are, `facts` makes more of those that are `used`; `doubt` is what the publisher
    says against a row. Columns that are neither are listed, not kept.
    """

    name: str
    summary: str
    tables: tuple[str, ...]
    columns: Mapping[str, str]
    masks: tuple[str, ...] = ()
    delimiter: str = ","
    facts: Callable[[Cells], Mapping[str, str]] = field(default=lambda cells: {})
    used: tuple[str, ...] = ()
    doubt: Callable[[Cells], str | None] = field(default=lambda cells: None)


def _one_hot(cells: Cells) -> dict[str, str]:
    chosen = [name for name in _ISIC_CLASSES if cells.get(name, "").startswith("1")]
    return {"dx": " and ".join(_ISIC_CLASSES[name] for name in chosen)} if chosen else {}


def _pad(cells: Cells) -> dict[str, str]:
    facts = {"confirmation": "biopsy" if cells.get("biopsed") == "True" else "clinical consensus"}
    if cells.get("lesion_id") and cells.get("patient_id"):
        facts["lesion_id"] = f"{cells['patient_id']}_{cells['lesion_id']}"
    return facts


def _ph2(cells: Cells) -> dict[str, str]:
    codes = {"0": "nv", "1": "nv", "2": "mel"}
    found = codes.get(cells.get("Clinical Diagnosis", ""))
    facts = {"dx": found} if found else {}
    return {**facts, "confirmation": "histopathology"} if cells.get("Histological Diagnosis") else facts


def _ddi(cells: Cells) -> dict[str, str]:
    facts = {"dx": cells.get("disease", "").replace("-", " "), "confirmation": "histopathology"}
    return {**facts, "extra:note": f"skin types {cells['skin_tone']}"} if cells.get("skin_tone") else facts


def _fitzpatrick(cells: Cells) -> dict[str, str]:
    scale = cells.get("fitzpatrick_scale", "")
    return {} if scale in ("", "-1") else {"skin_type": scale}


def _wrongly_labelled(cells: Cells) -> str | None:
    return cells["qc"] if cells.get("qc", "").startswith("3") else None


_ISIC_CLASSES = {
    "MEL": "mel",
    "NV": "nv",
    "BCC": "bcc",
    "AK": "akiec",
    "AKIEC": "akiec",
    "BKL": "bkl",
    "DF": "df",
    "VASC": "vasc",
    "SCC": "scc",
}
_VARIETIES = {
    "basal cell carcinoma morpheiform": "bcc",
    "basal cell carcinoma nodular": "bcc",
    "basal cell carcinoma superficial": "bcc",
    "granuloma pyogenic": "vasc",
    "melanoma acral lentiginous": "mel",
    "melanoma in situ": "mel",
    "nodular melanoma (nm)": "mel",
    "seborrheic keratosis irritated": "bkl",
    "solid cystic basal cell carcinoma": "bcc",
    "superficial spreading melanoma ssm": "mel",
}
"""Names in DDI and Fitzpatrick17k for varieties of a shipped class."""
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
        used=(*_ISIC_CLASSES, "UNK"),
    ),
    Published(
        "pad-ufes-20",
        "PAD-UFES-20: metadata.csv with img_id",
        ("*metadata.csv",),
        _PAD,
        facts=_pad,
        used=("biopsed",),
    ),
    Published(
        "ph2",
        "PH2: PH2_dataset.txt and lesion masks",
        ("PH2_dataset.txt",),
        {"Name": "image"},
        ("{stem}_lesion.bmp", "{stem}_lesion.png"),
        "|",
        _ph2,
        ("Clinical Diagnosis", "Histological Diagnosis"),
    ),
    Published(
        "fitzpatrick17k",
        "Fitzpatrick17k: labels and skin types by md5hash",
        ("fitzpatrick17k*.csv",),
        {"md5hash": "image", "label": "dx"},
        facts=_fitzpatrick,
        used=("fitzpatrick_scale", "qc"),
        doubt=_wrongly_labelled,
    ),
    Published(
        "ddi",
        "DDI: ddi_metadata.csv",
        ("ddi_metadata.csv",),
        {"DDI_file": "image"},
        facts=_ddi,
        used=("disease", "skin_tone"),
    ),
)
"""The published sets that can be read as they are; a `metadata.csv` of the common columns is read by `csv`."""


def read(source: Path, settings: ReadSettings, entry: Published) -> ReadResult:
    """One item for each image of the set that is at hand and whose table names a diagnosis of the taxonomy."""
    root = source if source.is_dir() else source.parent
    images = ImageFolder.scan(settings.images or root)
    merged = _merged(source, entry)
    if left := _left_columns(merged.values(), entry):
        yield Entry(Kind.EXPECTED, entry.name, "columns", ", ".join(left), "have no place in the house's words")
    for name, cells in merged.items():
        item = f"{entry.name}, {name}"
        try:
            yield from _item(name, cells, images, settings, entry)
        except ConversionError as error:
            yield refused(error, item)
        except ValueError as error:
            yield refused(AnnotationError(item, str(error), "a readable row", "Correct the table."))


def _left_columns(rows: Iterable[Cells], entry: Published) -> list[str]:
    found = dict.fromkeys(column for cells in rows for column, cell in cells.items() if cell)
    return [column for column in found if column and column not in entry.columns and column not in entry.used]


def _item(name: str, cells: Cells, images: ImageFolder, settings: ReadSettings, entry: Published) -> ReadResult:
    item = f"{entry.name}, {name}"
    path = _image(name, images)
    if path is None:
        yield Entry(Kind.SKIPPED, item, "image", name, "is in the table, but not in the folder")
        return
    if doubt := entry.doubt(cells):
        yield Entry(Kind.SKIPPED, item, "label", doubt, "its publisher doubts its label")
        return
    values, errors = parse_cells(_facts(cells, settings.taxonomy, entry), settings.taxonomy)
    if unknown := [error for error in errors if error.column == "dx"]:
        yield Entry(Kind.SKIPPED, item, "dx", unknown[0].value, "is no class of the taxonomy; append it to keep it")
        return
    for error in errors:
        yield Entry(Kind.EXPECTED, item, error.column, error.value, f"is left unknown; expected {error.expected}")
    row = MetadataRow(line=0, image=path.name, **values)
    image_id, size = measured(path, item)
    masks = (pattern.format(stem=path.stem) for pattern in entry.masks)
    mask_path = next((images.by_name[mask][0] for mask in masks if mask in images.by_name), None)
    mask = read_mask(mask_path, item) if mask_path else None
    record = row.record(image_id, str(path), size, source=entry.name)
    truth = row.truth(image_id, size, mask, author=entry.name)
    yield DatasetItem(record, truth or Annotation(image_id, Finding.NOT_LOOKED_AT))


def _facts(cells: Cells, taxonomy: Taxonomy, entry: Published) -> dict[str, str]:
    """What the cells state, by fact; a variety of a class becomes the class, its own name a note."""
    facts = {fact: cells[column].strip() for column, fact in entry.columns.items() if cells.get(column)}
    facts = {**facts, **entry.facts(cells)}
    facts.pop("image", None)
    said = facts.get("dx", "")
    found = _VARIETIES.get(said.casefold())
    if found is None or taxonomy.find(said) is not None:
        return facts
    return {**facts, "dx": found, "extra:label": said}


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
    lines = text.split("\n")
    if entry.delimiter == "|":
        rows = (line.strip() for line in lines)
        lines = [row.strip("|").replace("||", "|") for row in rows if row.startswith("|")]
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
