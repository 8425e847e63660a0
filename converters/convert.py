"""The journey of a conversion: read, split, write, read back, compare, and only then put the target in its place."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from converters import naming, splits
from converters.annotation import Annotation, Finding, ImageRecord
from converters.compare import compare, why_absent
from converters.dataset import Dataset, DatasetItem, Split
from converters.duplicates import near_duplicates
from converters.errors import ConversionError, DatasetError, refused_by_disk
from converters.formats.contract import Carries, Format, Picture, Placed, ReadSettings, WriteSettings
from converters.formats.metadata_csv import WHOLE_IMAGE
from converters.output import OutputFolder, open_output
from converters.report import ConversionReport, Entry, Kind, counted, refused
from converters.request import Request, fingerprint, write_settings
from converters.written import Written

_OTHER = "Choose another format."
_LESIONS, _LESION_FREE = Finding.LESIONS, Finding.LESION_FREE  # looking up a member costs a call in Python 3.11
_TURN = 64
Progress = Callable[[str, int], None]
Streamed = TypeVar("Streamed")


class NothingWrittenError(DatasetError):
    """A conversion that wrote nothing; `report` says what was read and why it has no place in the target."""

    def __init__(self, report: ConversionReport, item: str, value: object, expected: str, cure: str) -> None:
        self.report = replace(report, written=False)
        super().__init__(item, value, expected, cure)


class LossError(NothingWrittenError):
    """A conversion that would lose or guess something; `report` lists every case. Nothing was written."""

    def __init__(self, report: ConversionReport) -> None:
        first = report.failures[0]
        cure = "Cure the causes, or go on with --allow-loss."
        super().__init__(report, first.item, first.value, first.reason, cure)

    def __str__(self) -> str:
        first, count = self.report.failures[0], len(self.report.failures)
        more = f" {count - 1} more such entries in the report." if count > 1 else ""
        reason = first.reason if first.reason.endswith(".") else f"{first.reason}."
        return f"{first.item}: {first.field} {first.value}; {reason}{more} {self.cure}"


@dataclass(slots=True)
class _Tally:
    """What has passed so far; one conversion's own, never shared."""

    entries: list[Entry] = field(default_factory=list)
    seen: dict[int, None] = field(default_factory=dict)
    classes: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    backgrounds: int = 0
    images: int = 0
    without_bytes: int = 0

    def recount(self, before: DatasetItem, after: DatasetItem | None) -> None:
        """Count what came back of an item instead of what was written; `after` is None where all of it is lost."""
        self.classes.subtract(lesion.title for lesion in before.truth.lesions)
        if after is not None:
            self.classes.update(lesion.title for lesion in after.truth.lesions)
            return
        self.images -= 1
        self.backgrounds -= before.truth.finding is _LESION_FREE
        if before.split is not None:
            self.splits[str(before.split)] -= 1


def _silent(stage: str, count: int) -> None:
    return None


def convert(request: Request, progress: Progress = _silent) -> ConversionReport:
    """The report of a conversion whose target is now in place.

    Raises LossError where labels were lost or inputs refused, unless losses are allowed; DatasetError where source or
    target cannot be used at all. In both cases nothing is left behind.
    """
    try:
        return _converted(request, progress)
    except OSError as error:
        raise refused_by_disk(error, f"{request.source} → {request.target}") from error


def _converted(request: Request, progress: Progress) -> ConversionReport:
    reading, writing = request.reader.read, request.writer.write
    if reading is None or writing is None:
        name, verb = (request.writer.name, "written") if writing is None else (request.reader.name, "read")
        raise DatasetError("format", name, f"a format that can be {verb}", "See `dermloop convert --help`.")
    with (
        open_output(request.target, fingerprint(request)) as output,
        _no_garbage(),
        closing(Written(request.writer.carries.addresses)) as written,
    ):
        tally, settings = _Tally(), write_settings(request)
        items = _accepted(_in_turns(items_of(request, progress)), request, tally)
        noted = _noted(naming.placed(items, request.names), tally, written if request.read_back else None)
        for piece in writing(_in_turns(noted), settings):
            if isinstance(piece, Picture):
                output.copy(piece)
            else:
                output.add(piece)
        output.close()
        _require_content(request, tally)
        if request.read_back:
            tally.entries += _read_back(request, output, settings, written, tally, progress)
        report = _report(request, tally)
        if report.failures and not request.allow_loss:
            raise LossError(report)
        if request.read_back and not written.taken:
            value = "no image to write (none came back from the target)"
            expected = f"images that {request.writer.name} can hold"
            raise NothingWrittenError(report, str(request.source), value, expected, _OTHER)
        output.finish()
    return report


def _in_turns(found: Iterable[Streamed]) -> Iterator[Streamed]:
    """The same, some made before any goes on: steps that work in long turns take a fifth less time altogether."""
    waiting = iter(found)
    while turn := list(islice(waiting, _TURN)):
        yield from turn


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Labels hold no cycles: looking for them while they stream by would take a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _require_content(request: Request, tally: _Tally) -> None:
    report = _report(request, tally)
    if report.failures and not request.allow_loss:
        raise LossError(report)
    if not tally.images:
        if not tally.entries:
            value = f"nothing that can be read as {request.reader.name}"
            cure = "Leave --from out to have the format found out, or name another file or folder."
            raise NothingWrittenError(report, str(request.source), value, "labelled images", cure)
        value = f"no image to write ({len(tally.entries)} left out)"
        reasons = "; ".join(sorted({entry.reason for entry in tally.entries})[:3])
        expected = f"at least one image with a place in {request.writer.name} ({reasons})"
        cure = "Annotate, choose another format, or lower `minimum` in --truth-policy."
        raise NothingWrittenError(report, str(request.source), value, expected, cure)


def items_of(request: Request, progress: Progress = _silent) -> Iterator[DatasetItem | Entry]:
    """What a conversion reads: every item of the source in its split, and what could not be read."""
    assert request.reader.read is not None
    assigned = _splits(request, progress) if request.split is not None else {}
    for number, found in enumerate(request.reader.read(request.source, request.read), 1):
        if assigned and isinstance(found, DatasetItem) and found.record.image_id in assigned:
            yield replace(found, split=assigned[found.record.image_id])
        else:
            yield found
        progress("convert", number)


def _splits(request: Request, progress: Progress) -> dict[str, Split]:
    assert request.reader.read is not None and request.split is not None
    items: dict[str, DatasetItem] = {}
    for number, item in enumerate(request.reader.read(request.source, request.read), 1):
        progress("deal into splits", number)
        if isinstance(item, DatasetItem):
            items[item.record.image_id] = _outline(item)
    known = {image_id: item.split for image_id, item in items.items() if item.split}
    paths = {image_id: Path(item.record.uri) for image_id, item in items.items()}
    pairs = near_duplicates({image_id: path for image_id, path in paths.items() if path.is_file()})
    whole = splits.split(Dataset(request.read.taxonomy, tuple(items.values())), request.split, known, pairs)
    return {item.record.image_id: item.split for item in whole.items if item.split}


def _outline(item: DatasetItem) -> DatasetItem:
    """The item without what a split does not look at, so that many fit into memory."""
    record = item.record
    kept = ImageRecord(
        record.image_id,
        record.uri,
        record.size,
        patient_id=record.patient_id,
        lesion_id=record.lesion_id,
        skin_type=record.skin_type,
        source=record.source,
    )
    lesions = tuple(replace(lesion, shape=None, keypoints=(), attributes=()) for lesion in item.truth.lesions)
    return DatasetItem(kept, replace(item.truth, lesions=lesions), item.split)


def _accepted(found: Iterable[DatasetItem | Entry], request: Request, tally: _Tally) -> Iterator[DatasetItem]:
    """The items that have a place in the target; the others become entries."""
    carries, entries, seen = request.writer.carries, tally.entries, tally.seen
    for item in found:
        if isinstance(item, Entry):
            entries.append(item)
        elif (key := hash(item.record.image_id)) in seen:
            place = f"{request.source.name}, {_name(item)}"
            reason = "expected each image once, but it came before. Merge its tasks, or delete one of them."
            entries.append(Entry(Kind.REFUSED, place, "image", item.record.image_id[:80], reason))
        else:
            seen[key] = None
            if (entry := _objection(item, carries)) is None:
                yield item
            else:
                entries.append(entry)


def _objection(item: DatasetItem, carries: Carries) -> Entry | None:
    """Why an item has no place in a target, or None where it has one."""
    truth, finding = item.truth, item.truth.finding
    if finding is _LESIONS:
        if not truth.lesions:
            refusal = "says lesions are marked, but none is; it must not become a background"
            return Entry(Kind.REFUSED, _name(item), "finding", "lesions", refusal)
        reason = None
    else:
        reason = _no_negative(finding, carries)
    if reason is None and not carries.whole_image:
        reason = _whole_image_only(truth)
    return None if reason is None else Entry(Kind.SKIPPED, _name(item), "finding", finding.value, reason)


def _no_negative(finding: Finding, carries: Carries) -> str | None:
    """Why a negative has no place in a format by design, or None where it has one."""
    if finding is Finding.LESION_FREE and not carries.background:
        return "lesion-free images have no place in this format"
    if finding is Finding.NOT_LOOKED_AT or (finding is Finding.UNGRADABLE and "finding" not in carries.fields):
        return "only a confirmed lesion-free image becomes a background"
    return None


def _whole_image_only(truth: Annotation) -> str | None:
    for attributes in [lesion.attributes for lesion in truth.lesions if lesion.attributes]:
        if WHOLE_IMAGE in attributes:
            return "its diagnosis is for the whole picture, and this format would make a box of it"
    return None


def _name(item: DatasetItem) -> str:
    return item.record.original_name or item.record.uri


def _noted(found: Iterable[Placed], tally: _Tally, written: Written | None) -> Iterator[Placed]:
    classes = tally.classes
    for placed in found:
        item, truth = placed.item, placed.item.truth
        tally.images += 1
        if truth.finding is _LESION_FREE:
            tally.backgrounds += 1
        if item.split is not None:
            tally.splits[str(item.split)] += 1
        for lesion in truth.lesions:
            classes[lesion.diagnosis or lesion.title] += 1
        if placed.image is None:
            tally.without_bytes += 1
        if written is not None:
            written.add(placed)
        yield placed


def _read_back(
    request: Request, output: OutputFolder, settings: WriteSettings, written: Written, tally: _Tally, progress: Progress
) -> Iterator[Entry]:
    for number, back in enumerate(_given_back(request, output, settings, written), 1):
        progress("read back", number)
        if isinstance(back, Entry):
            kind = Kind.LOST if back.kind is Kind.REFUSED else back.kind
            here, there = str(output.draft), str(request.target)
            yield replace(back, kind=kind, item=back.item.replace(here, there), value=back.value.replace(here, there))
            continue
        placed = written.take(back.record.uri)
        if placed is None:
            yield Entry(Kind.LOST, back.record.uri, "image", "", "came back although it was not written")
            continue
        if len(placed.item.truth.lesions) != len(back.truth.lesions):
            tally.recount(placed.item, back)
        yield from compare(placed.item, back, request.writer.carries, placed.name)
    for placed in written.left():
        tally.recount(placed.item, None)
        reason = why_absent(placed.item, request.writer.carries)
        yield Entry(Kind.LOST, placed.name, "image", f"of {counted(len(placed.item.truth.lesions), 'lesion')}", reason)


def _given_back(
    request: Request, output: OutputFolder, settings: WriteSettings, written: Written
) -> Iterator[DatasetItem | Entry]:
    assert request.writer.read is not None
    try:
        yield from request.writer.read(output.draft, ReadSettings(settings.taxonomy, sizes=written.sizes()))
    except ConversionError as error:
        yield refused(error)


def _report(request: Request, tally: _Tally) -> ConversionReport:
    entries = list(tally.entries)
    if tally.without_bytes:
        value = f"{tally.without_bytes} of {tally.images}"
        entries.append(Entry(Kind.EXPECTED, "images", "bytes", value, "are known by address only; no image was copied"))
    return ConversionReport(
        source_format=request.reader.name,
        target_format=request.writer.name,
        images=tally.images,
        lesions=tally.classes.total(),
        backgrounds=tally.backgrounds,
        classes={name: count for name, count in sorted(tally.classes.items()) if count},
        splits={split.value: tally.splits[split.value] for split in Split},
        entries=tuple(entries),
        read_back=request.read_back,
    )


def read_all(source: Path, reader: Format, settings: ReadSettings) -> tuple[tuple[DatasetItem, ...], tuple[Entry, ...]]:
    """All items of a source in memory, and what was left out; for inspection and comparison.

    Raises DatasetError where the format cannot be read.
    """
    if reader.read is None:
        raise DatasetError("format", reader.name, "a format that can be read", "See `dermloop convert --help`.")
    found = list(reader.read(source, settings))
    items = tuple(item for item in found if isinstance(item, DatasetItem))
    return items, tuple(entry for entry in found if isinstance(entry, Entry))
