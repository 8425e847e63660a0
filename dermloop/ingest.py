"""Images into the home: turned upright, rid of EXIF, named by content, with what a table says of them.

Nothing is dropped quietly: each file, row or column that is not taken over is in the report with its reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from converters import images, taxonomy
from converters.annotation import ImageRecord
from converters.errors import ConversionError
from converters.formats.metadata_csv import MetadataRow, MetadataTable, read_rows
from converters.images import CleanImage, ImageLimits
from converters.whole import write_whole
from dermloop.errors import IngestError
from dermloop.home import Home

METADATA = "metadata.csv"
Progress = Callable[[int, int], None]
Register = Callable[[Sequence[ImageRecord]], int]
_AHEAD = 32


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was not taken over, and why; `kind` is file, row, column or cell."""

    kind: str
    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What came of a folder: the images now in the home, how many of them are new, and what was left out or noted."""

    records: tuple[ImageRecord, ...] = ()
    stored: int = 0
    registered: int = 0
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[Skipped, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Source:
    """A file that may be an image: where it lies and its name within the folder, with `/` between parts."""

    path: Path
    name: str


def ingest(
    folder: Path,
    home: Home,
    metadata: Path | None = None,
    register: Register | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    limits: ImageLimits | None = None,
) -> IngestReport:
    """The report after the folder's JPEG and PNG files lie in the home and are registered; again, it adds nothing.

    `metadata` is a table as in converters/formats/metadata_csv.py; without it, a `metadata.csv` in the folder is used.
    `register` takes the records and says how many were new. `limit` takes the first so many files by name.
    Raises IngestError where folder or table cannot be read at all.
    """
    table = _table(folder, metadata)
    found, notes = _listed(folder, table)
    chosen = found if limit is None else found[:limit]
    records, stored, skipped = _taken(chosen, home, table, limits, progress)
    registered = register(records) if register and records else 0
    issues, remarks = _table_issues(table, found, metadata is not None)
    return IngestReport(tuple(records), stored, registered, (*skipped, *issues), (*notes, *remarks))


def _table(folder: Path, metadata: Path | None) -> MetadataTable | None:
    if not folder.is_dir():
        raise IngestError(str(folder), "no folder", "a folder of JPEG or PNG files", "Name another one with --images.")
    beside = folder / METADATA
    path = metadata or (beside if beside.is_file() else None)
    try:
        return read_rows(path, taxonomy.read()) if path else None
    except ConversionError as error:
        raise IngestError(error.item, error.value, error.expected, error.cure) from error


def _listed(folder: Path, table: MetadataTable | None) -> tuple[list[Source], list[Skipped]]:
    """The files that may be images, by name, without the table's masks; and the masks' number as a note."""
    files = [Source(path, path.relative_to(folder).as_posix()) for path in sorted(folder.rglob("*")) if path.is_file()]
    visible = [file for file in files if not any(part.startswith(".") for part in PurePosixPath(file.name).parts)]
    masks = set(_mask_paths(folder, table))
    own = {table.path.resolve()} if table else set()
    taken = [file for file in visible if file.path.resolve() not in masks | own]
    aside = sum(file.path.resolve() in masks for file in visible)
    note = [Skipped("file", f"{aside} masks", "belong to images of the table; they are not images to label")]
    return taken, note if aside else []


def _mask_paths(folder: Path, table: MetadataTable | None) -> Iterator[Path]:
    for row in table.rows.values() if table else ():
        for mask in (entry.mask for entry in (row, *row.others)):
            if table and mask:
                yield (table.path.parent / mask).resolve()
                yield (folder / mask).resolve()


def _taken(
    files: Sequence[Source],
    home: Home,
    table: MetadataTable | None,
    limits: ImageLimits | None,
    progress: Progress | None,
) -> tuple[list[ImageRecord], int, list[Skipped]]:
    records: dict[str, ImageRecord] = {}
    names: dict[str, str] = {}
    skipped: list[Skipped] = []
    stored = 0
    for done, (file, result) in enumerate(_cleaned(files, limits), start=1):
        base = PurePosixPath(file.name).name
        if isinstance(result, Skipped):
            skipped.append(result)
        elif (first := records.get(result.image_id)) is not None:
            skipped.append(Skipped("file", file.name, f"has the same content as {first.original_name}"))
        else:
            record = _record(result, file, table, named_before=base in names)
            records[result.image_id] = record
            stored += _store(result, home)
            names.setdefault(base, file.name)
        if progress:
            progress(done, len(files))
    return list(records.values()), stored, skipped


def _cleaned(files: Iterable[Source], limits: ImageLimits | None) -> Iterator[tuple[Source, CleanImage | Skipped]]:
    """Each file with its clean image or the reason why there is none, in order; a few are decoded ahead."""
    workers = max(1, min(4, os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool:
        waiting = []
        for file in files:
            waiting.append((file, pool.submit(_clean, file, limits)))
            if len(waiting) >= _AHEAD:
                first, future = waiting.pop(0)
                yield first, future.result()
        for file, future in waiting:
            yield file, future.result()


def _clean(file: Source, limits: ImageLimits | None) -> CleanImage | Skipped:
    if file.path.suffix.lower() not in images.IMAGE_SUFFIXES:
        return Skipped("file", file.name, f"is no JPEG or PNG file ({file.path.suffix or 'no suffix'})")
    try:
        return images.clean(file.path.read_bytes(), file.name, limits)
    except OSError as error:
        return Skipped("file", file.name, f"cannot be read: {error.strerror}")
    except ConversionError as error:
        return Skipped("file", file.name, f"got {error.value}; expected {error.expected}. {error.cure}")


def _record(image: CleanImage, file: Source, table: MetadataTable | None, named_before: bool) -> ImageRecord:
    """What is known of an image; a file named like an earlier one keeps its folder in its name."""
    row = (table.find(file.name) if table else None) or MetadataRow(0, file.name)
    record = row.record(image.image_id, f"images/{image.image_id}{image.suffix}", image.size)
    return replace(record, original_name=file.name if named_before else PurePosixPath(file.name).name)


def _store(image: CleanImage, home: Home) -> bool:
    """Whether the image was new; it appears whole or not at all."""
    target = home.images / f"{image.image_id}{image.suffix}"
    if target.exists() and target.stat().st_size == len(image.content):
        return False
    write_whole(target, image.content)
    return True


def _table_issues(
    table: MetadataTable | None, files: Sequence[Source], named: bool
) -> tuple[list[Skipped], list[Skipped]]:
    """What the table said in vain: columns, rows and cells left out; and rows without a file, as a note."""
    if table is None:
        return [], []
    kinds: Mapping[str, str] = {"image": "row", "row": "row"}
    issues = [
        Skipped("column" if issue.line == 1 else kinds.get(issue.column, "cell"), str(issue), issue.reason)
        for issue in table.issues
    ]
    used = {row.line for file in files if (row := table.find(file.name)) is not None}
    without = [row for row in table.rows.values() if row.line not in used]
    notes = [Skipped("row", f"line {row.line}, {row.image}", "has no file in the folder") for row in without]
    return issues, notes if named or len(notes) < len(table.rows) else notes[:1]
