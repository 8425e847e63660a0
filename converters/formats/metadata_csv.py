"""Metadata tables beside image folders: one row for each image, blank cells unknown, every oddity on a list.

Columns are those of the HAM10000 family (`image, mask, dx, confirm_type, age, sex, localization, skin_type, lesion_id,
patient_id, bbox_x, bbox_y, bbox_w, bbox_h, width, height, …`) under the names that ISIC, PAD-UFES-20 and HAM10000 use.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from converters import taxonomy as taxonomies
from converters.annotation import Annotation, Confirmation, Finding, ImageRecord, Lesion, TruthLevel
from converters.errors import AnnotationError, DatasetError
from converters.formats.metadata_values import CellError, parse_cells
from converters.geometry import ImageSize, PixelBox, RleMask
from converters.taxonomy import Taxonomy

WHOLE_IMAGE = ("extent", "image")
"""Attribute of a lesion whose table gives a diagnosis for the picture but no box."""

COLUMNS: Mapping[str, str] = {
    **dict.fromkeys(("image", "image_id", "img_id", "file", "filename", "file_name", "isic_id"), "image"),
    **dict.fromkeys(("dx", "diagnosis", "diagnostic"), "dx"),
    **dict.fromkeys(("confirm_type", "dx_type", "diagnosis_confirm_type", "confirmation"), "confirmation"),
    **dict.fromkeys(("age", "age_approx"), "age"),
    **dict.fromkeys(("sex", "gender"), "sex"),
    **dict.fromkeys(("localization", "anatom_site_general", "region", "site"), "site"),
    **dict.fromkeys(("skin_type", "fitspatrick", "fitzpatrick", "fitzpatrick_skin_type"), "skin_type"),
    **{name: name for name in ("mask", "lesion_id", "patient_id", "device", "source")},
    **{name: name for name in ("consent", "synthetic", "finding")},
    **{name: name for name in ("bbox_x", "bbox_y", "bbox_w", "bbox_h", "width", "height")},
}
"""Known column names and the fact that each one states."""

NOTES = frozenset({"split", "dx_source", "mask_components", "geometry", "note", "biopsed"})
"""Known columns that are kept word for word in `ImageRecord.extra`."""

_LEVELS = {
    Confirmation.HISTOPATHOLOGY: TruthLevel.HISTOPATHOLOGY,
    Confirmation.CONSENSUS: TruthLevel.CONSENSUS,
    Confirmation.FOLLOW_UP: TruthLevel.CONSENSUS,
    Confirmation.CONFOCAL: TruthLevel.CONSENSUS,
}


@dataclass(frozen=True, slots=True)
class TableIssue:
    """Something in a table that was not taken over: where it stands, what it says and why it was left out."""

    line: int
    image: str
    column: str
    value: str
    reason: str

    def __str__(self) -> str:
        place = f"line {self.line}" + (f", {self.image}" if self.image else "")
        return f"{place}, {self.column}: {self.value!r} {self.reason}"


@dataclass(frozen=True, slots=True)
class MetadataRow:
    """What a table says of one image; None is unknown. `image` and `mask` are paths as the table gives them.

    `others` are the image's further rows, one for each further lesion; facts of the image are those of the first row.
    """

    line: int
    image: str
    mask: str | None = None
    diagnosis: str | None = None
    severity: str | None = None
    box: PixelBox | None = None
    size: ImageSize | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    skin_type: int | None = None
    lesion_id: str | None = None
    patient_id: str | None = None
    confirmation: Confirmation = Confirmation.UNKNOWN
    device: str | None = None
    source: str | None = None
    consent: bool | None = None
    synthetic: bool = False
    finding: Finding | None = None
    extra: tuple[tuple[str, str], ...] = ()
    others: tuple[MetadataRow, ...] = ()

    @property
    def name(self) -> str:
        """File name of the image, without folders."""
        return PurePosixPath(self.image).name

    def record(self, image_id: str, uri: str, size: ImageSize, source: str | None = None) -> ImageRecord:
        """The image record of these facts for an image whose bytes, address and size are known."""
        return ImageRecord(
            image_id=image_id,
            uri=uri,
            size=size,
            original_name=self.name,
            patient_id=self.patient_id,
            lesion_id=self.lesion_id,
            age=self.age,
            sex=self.sex,
            site=self.site,
            skin_type=self.skin_type,
            confirmation=self.confirmation,
            source=self.source or source,
            device=self.device,
            consent=self.consent,
            synthetic=self.synthetic,
            extra=self.extra,
        )

    def truth(
        self, image_id: str, size: ImageSize, mask: RleMask | None = None, author: str = "metadata"
    ) -> Annotation | None:
        """What the table says as an annotation, or None where it names neither a lesion, a diagnosis nor a finding.

        `mask`, where given, becomes the first lesion's shape. Without a box and a mask the lesion covers the image and
        has the attribute `WHOLE_IMAGE`. Raises AnnotationError where size or box contradict the image.
        """
        self._require_fit(size, mask)
        level = _LEVELS.get(self.confirmation, TruthLevel.DERMATOLOGIST)
        if self.finding not in (None, Finding.LESIONS):
            return Annotation(image_id, self.finding, level=level, author=author)
        outlined = self.box or (mask.envelope() if mask else None)
        if outlined is None and self.diagnosis is None and self.severity is None:
            return None
        for other in self.others:
            other._require_fit(size, None)
        lesions = (self._lesion(size, mask), *(other._lesion(size, None) for other in self.others))
        return Annotation(image_id, Finding.LESIONS, lesions, level=level, author=author)

    def _lesion(self, size: ImageSize, mask: RleMask | None) -> Lesion:
        outlined = self.box or (mask.envelope() if mask else None)
        return Lesion(
            box=outlined or PixelBox(0, 0, size.width, size.height),
            diagnosis=self.diagnosis,
            severity=self.severity,
            shape=mask,
            attributes=() if outlined else (WHOLE_IMAGE,),
        )

    def _require_fit(self, size: ImageSize, mask: RleMask | None) -> None:
        item = f"line {self.line}, {self.image}"
        for what, claimed in (("table", self.size), ("mask", mask.size if mask else None)):
            if claimed not in (None, size):
                raise AnnotationError(f"{item}, {what} size", claimed, f"the image's {size}", "Correct the table.")
        if self.box is not None and self.box.clipped(size) != self.box:
            raise AnnotationError(f"{item}, bbox", self.box, f"a box inside {size}", "Correct the table.")


@dataclass(frozen=True, slots=True)
class MetadataTable:
    """The rows of a table by image file name, and what was not taken over.

    Where several rows share a file name in different folders, each is keyed by its path instead; use `find`.
    """

    path: Path
    rows: Mapping[str, MetadataRow] = field(default_factory=dict)
    issues: tuple[TableIssue, ...] = ()

    def find(self, image: str) -> MetadataRow | None:
        """The row of an image given by path, file name, or file name without suffix; None where there is none."""
        path = PurePosixPath(image.replace("\\", "/"))
        endings = ["/".join(path.parts[start:]) for start in range(len(path.parts))]
        for key in (*endings, *(str(PurePosixPath(ending).with_suffix("")) for ending in endings if ending != "/")):
            if key in self.rows:
                return self.rows[key]
        return None


def read_rows(path: Path, taxonomy: Taxonomy | None = None) -> MetadataTable:
    """The table of a CSV file (comma, semicolon or tab), with every column, row and cell it had to leave out.

    Raises DatasetError only where nothing can be read: no file, no text, no header or no image column.
    """
    header, body = _open(path)
    known = [_known(name) for name in header]
    classes = taxonomy or taxonomies.read()
    issues = [
        TableIssue(1, "", name, name, "is an unknown column; it was left out")
        for name, fact in zip(header, known, strict=True)
        if fact is None
    ]
    rows: list[MetadataRow] = []
    for line, cells in body:
        row, found = _row(line, dict(_facts(known, cells)), classes)
        issues += found
        if len(cells) != len(header):
            issues.append(_issue(line, row, "row", str(len(cells)), f"cells instead of {len(header)}"))
        elif row is not None:
            rows.append(row)
    keyed, doubled = _keyed(rows)
    return MetadataTable(path, keyed, tuple(sorted((*issues, *doubled), key=lambda issue: issue.line)))


def _open(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(str(path), str(error), "a readable UTF-8 table", "Save it as CSV in UTF-8.") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise DatasetError(str(path), str(error), "a header row", "Save it as CSV again.") from error
    facts = Counter(fact for fact in map(_known, header) if fact)
    if facts["image"] != 1 or max(facts.values()) > 1:
        expected = "a header that names the image column and no fact twice"
        raise DatasetError(str(path), ",".join(header)[:200], expected, "Name the column of file names `image`.")
    return header, _lines(path, reader)


def _lines(path: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            line = getattr(reader, "line_num", 0)
            raise DatasetError(f"{path}, line {line}", str(error), "a CSV row", "Save the table again.") from error
        if any(cell.strip() for cell in cells):
            yield getattr(reader, "line_num", 0), cells


def _known(name: str) -> str | None:
    key = name.strip().casefold()
    return COLUMNS.get(key) or (f"extra:{key}" if key in NOTES else None)


def _facts(known: Sequence[str | None], cells: Sequence[str]) -> Iterator[tuple[str, str]]:
    for fact, cell in zip(known, cells, strict=False):
        if fact is not None and (text := cell.strip()):
            yield fact, text


def _row(line: int, facts: dict[str, str], taxonomy: Taxonomy) -> tuple[MetadataRow | None, list[TableIssue]]:
    image = facts.pop("image", "").replace("\\", "/")
    if not image:
        return None, [TableIssue(line, "", "image", "", "is blank; the row was left out")]
    values, errors = parse_cells(facts, taxonomy)
    issues = [_cell_issue(line, image, error) for error in errors]
    return MetadataRow(line=line, image=image, **values), issues


def _cell_issue(line: int, image: str, error: CellError) -> TableIssue:
    return TableIssue(line, image, error.column, error.value, f"is not {error.expected}; it counts as unknown")


def _issue(line: int, row: MetadataRow | None, column: str, value: str, reason: str) -> TableIssue:
    return TableIssue(line, row.image if row else "", column, value, f"{reason}; the row was left out")


def _keyed(rows: Sequence[MetadataRow]) -> tuple[dict[str, MetadataRow], list[TableIssue]]:
    paths: dict[str, MetadataRow] = {}
    issues = []
    for row in rows:
        first = paths.setdefault(row.image, row)
        if first is row:
            continue
        if _is_further_lesion(row, first):
            paths[row.image] = replace(first, others=(*first.others, row))
        else:
            issues.append(_issue(row.line, row, "image", row.image, f"was named before in line {first.line}"))
    names = Counter(PurePosixPath(image).name for image in paths)
    keyed = {row.name if names[row.name] == 1 else row.image: row for row in paths.values()}
    return dict(sorted(keyed.items())), issues


def _is_further_lesion(row: MetadataRow, first: MetadataRow) -> bool:
    known = [first.box, *(other.box for other in first.others)]
    same_subject = (row.patient_id, row.size) == (first.patient_id, first.size)
    return row.box is not None and None not in known and row.box not in known and same_subject
