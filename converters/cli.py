"""`dermloop convert`, `dermloop dataset …`, `dermloop taxonomy …`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from converters.errors import ConversionError, refused_by_disk

if TYPE_CHECKING:
    from converters.report import ConversionReport
    from converters.request import Request
    from converters.splits import SplitPolicy
    from converters.taxonomy import Taxonomy

app = typer.Typer(help="Convert, inspect and compare datasets.", no_args_is_help=True)
dataset_app = typer.Typer(help="Look into datasets of any format.", no_args_is_help=True)
taxonomy_app = typer.Typer(help="The class registry.", no_args_is_help=True)
app.add_typer(dataset_app, name="dataset")
app.add_typer(taxonomy_app, name="taxonomy")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Classes = Annotated[Path | None, typer.Option(help="TOML file of classes; the shipped seven by default.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the images that the source names.")]
Reader = Annotated[str | None, typer.Option("--from", help="Format of the source; found out by looking when left out.")]


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="File, folder or s3://bucket/prefix to read.")],
    target: Annotated[str, typer.Argument(help="New folder or s3://bucket/prefix to write.")],
    writer: Annotated[str, typer.Option("--to", help="Format to write; `dermloop dataset formats` lists them.")],
    reader: Reader = None,
    taxonomy: Classes = None,
    images: Images = None,
    split: Annotated[str | None, typer.Option(help="Shares such as 70/15/15 for images that have no split.")] = None,
    seed: Annotated[int, typer.Option(help="Order in which patients are dealt into splits.")] = 0,
    truth_policy: Annotated[Path | None, typer.Option(help="TOML file: whose answers count for how much.")] = None,
    image_key: Annotated[str | None, typer.Option(help="Key of the image address in Label Studio's task data.")] = None,
    prefix: Annotated[str, typer.Option(help="Goes before image paths in formats that hold addresses.")] = "",
    content_names: Annotated[bool, typer.Option(help="Name images by content; original names are left out.")] = False,
    crop_padding: Annotated[float, typer.Option(help="Margin around a crop, as a share of the box.")] = 0.1,
    crop_jitter: Annotated[float, typer.Option(help="Random shift of a crop, as a share of the box.")] = 0.0,
    crop_copies: Annotated[int, typer.Option(help="Crops per lesion; more than one needs a jitter.")] = 1,
    allow_loss: Annotated[bool, typer.Option(help="Go on where labels are lost or refused; the list is kept.")] = False,
    read_back: Annotated[bool, typer.Option(help="Read the target back and compare every label.")] = True,
    report: Annotated[Path | None, typer.Option(help="Write the whole report to this JSON file.")] = None,
    as_json: Json = False,
) -> None:
    """Convert a dataset, read it back, and list what was lost. Fails, writing nothing, when a label would be lost."""
    from converters.convert import NothingWrittenError
    from converters.convert import convert as run
    from converters.formats.contract import WriteSettings
    from converters.naming import Names
    from converters.request import fingerprint
    from converters.workplace import conversion_place

    with _errors(as_json), conversion_place(source, target) as place:
        _require_place(report)
        classes = _taxonomy(taxonomy)
        settings = WriteSettings(
            classes, (), prefix, crop_padding=crop_padding, crop_jitter=crop_jitter, crop_copies=crop_copies
        )
        request = request_of(
            place.source, place.target, reader, writer, classes, images, truth_policy, image_key, settings
        )
        request = _with(request, split_policy(split, seed), Names.CONTENT if content_names else Names.ORIGINAL)
        request = _allowing(request, allow_loss, read_back)
        place.take_up()
        try:
            with _progress(as_json) as progress:
                found = run(request, progress)
        except NothingWrittenError as error:
            tell_report(error.report, report, as_json)
            raise
        place.deliver(fingerprint(request))
        tell_report(found, report, as_json)


@dataset_app.command()
def formats(as_json: Json = False) -> None:
    """List the formats and what each can carry."""
    from converters.formats.table import FORMATS

    rows = [
        {
            "name": entry.name,
            "read": entry.read is not None,
            "write": entry.write is not None,
            "shapes": entry.carries.shapes.value,
            "summary": entry.summary,
        }
        for entry in FORMATS.values()
    ]
    if as_json:
        typer.echo(orjson.dumps(rows))
        return
    for row in rows:
        ways = f"{'r' if row['read'] else '-'}{'w' if row['write'] else '-'}"
        typer.echo(f"{row['name']:24} {ways}  {row['summary']}")


@dataset_app.command()
def inspect(
    source: Annotated[str, typer.Argument(help="Dataset of any format, or a frozen version.")],
    reader: Reader = None,
    taxonomy: Classes = None,
    images: Images = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet with the boxes drawn to this PNG.")] = None,
    as_json: Json = False,
) -> None:
    """Count images, classes, sizes, skin types, patients and near-duplicates; draw a contact sheet."""
    from converters.contact_sheet import contact_sheet
    from converters.inspect import inspected
    from converters.workplace import reading_place

    with _errors(as_json), reading_place(source) as place:
        _require_place(sheet)
        items, entries = _items(place, reader, taxonomy, images)
        found = inspected(items, entries)
        typer.echo(orjson.dumps(found.to_dict()) if as_json else found.text())
        if sheet is not None:
            sheet.write_bytes(contact_sheet(items))


@dataset_app.command()
def diff(
    one: Annotated[str, typer.Argument(help="Dataset of any format.")],
    other: Annotated[str, typer.Argument(help="Dataset of any format.")],
    taxonomy: Classes = None,
    as_json: Json = False,
) -> None:
    """Say which images and labels two datasets do not share; exit status 1 where they differ."""
    from converters.inspect import difference
    from converters.workplace import reading_place

    with _errors(as_json), reading_place(one) as left, reading_place(other) as right:
        first, _ = _items(left, None, taxonomy, None)
        second, _ = _items(right, None, taxonomy, None)
        lines = difference(first, second)
        typer.echo(orjson.dumps({"differences": lines}) if as_json else "\n".join(lines) or "equal")
    if lines:
        raise typer.Exit(1)


@taxonomy_app.command("diff")
def taxonomy_diff(
    old: Annotated[Path, typer.Argument(help="TOML file of classes.")],
    new: Annotated[Path | None, typer.Argument(help="TOML file of classes; the shipped one by default.")] = None,
    as_json: Json = False,
) -> None:
    """Explain what changed between two class lists; exit status 1 unless only classes were added."""
    from converters import taxonomy
    from converters.errors import TaxonomyError

    with _errors(as_json):
        before, after = taxonomy.read(old), taxonomy.read(new)
        lines = taxonomy.diff(before, after)
        try:
            before.require_prefix_of(after)
            appended = True
        except TaxonomyError:
            appended = False
        said = {"append_only": appended, "changes": lines}
        verdict = "append-only" if appended else "NOT append-only: weights and exports of the old list do not fit"
        typer.echo(orjson.dumps(said) if as_json else "\n".join((*lines, verdict)))
    if not appended:
        raise typer.Exit(1)


@taxonomy_app.command("show")
def taxonomy_show(path: Annotated[Path | None, typer.Argument(help="TOML file of classes.")] = None) -> None:
    """List the classes with id, severity and codes."""
    from converters import taxonomy

    with _errors(False):
        for d in taxonomy.read(path).diagnoses:
            side = "malignant" if d.malignant else "benign"
            typer.echo(f"{d.id:3} {d.code:8} {d.severity.value:9} {side:10} {d.icd_o or '-':8} {d.name}")


def request_of(
    source: Path,
    target: Path,
    reader: str | None,
    writer: str,
    classes: Taxonomy,
    images: Path | None,
    truth_policy: Path | None,
    image_key: str | None,
    settings: object,
) -> Request:
    """The conversion that the options of a command describe; raises ConversionError."""
    from converters.formats.contract import ReadSettings, WriteSettings
    from converters.formats.table import find, sniffed
    from converters.label_studio.policy import ExportPolicy, read_policy
    from converters.request import Request

    assert isinstance(settings, WriteSettings)
    policy = read_policy(truth_policy) if truth_policy else ExportPolicy()
    reading = ReadSettings(classes, images, policy, image_key)
    entry = find(reader) if reader else sniffed(source)
    return Request(source, target, entry, find(writer), reading, settings)


def _with(request: Request, split: SplitPolicy | None, names: object) -> Request:
    from dataclasses import replace

    return replace(request, split=split, names=names)  # type: ignore[arg-type]


def _allowing(request: Request, allow_loss: bool, read_back: bool) -> Request:
    from dataclasses import replace

    return replace(request, allow_loss=allow_loss, read_back=read_back)


def _items(source: Path, reader: str | None, taxonomy: Path | None, images: Path | None):  # type: ignore[no-untyped-def]
    from converters.convert import read_all
    from converters.formats.contract import ReadSettings
    from converters.formats.table import find, sniffed

    entry = find(reader) if reader else sniffed(source)
    return read_all(source, entry, ReadSettings(_taxonomy(taxonomy), images))


def _taxonomy(path: Path | None) -> Taxonomy:
    from converters import taxonomy

    return taxonomy.read(path)


def split_policy(text: str | None, seed: int) -> SplitPolicy | None:
    """The policy of shares such as `70/15/15`, None for None; raises DatasetError."""
    from converters.errors import DatasetError
    from converters.splits import SplitPolicy

    if text is None:
        return None
    try:
        train, val, test = (float(part) for part in text.split("/"))
        whole = train + val + test
        return SplitPolicy(train / whole, val / whole, test / whole, seed)
    except (ValueError, ZeroDivisionError) as error:
        raise DatasetError("--split", text, "three shares such as 70/15/15", "Correct the option.") from error


def _require_place(path: Path | None) -> None:
    """Raises DatasetError, before any work, where a file that is to be written has no folder."""
    from converters.errors import DatasetError

    if path is not None and not path.absolute().parent.is_dir():
        raise DatasetError(str(path), "no folder for it", "a file in a folder that is there", "Make the folder.")


def tell_report(found: ConversionReport, report: Path | None, as_json: bool) -> None:
    """Prints a report, and writes all of it to a file where one is named."""
    if report is not None:
        report.write_bytes(orjson.dumps(found.to_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    if as_json:
        typer.echo(orjson.dumps(found.to_dict()))
        return
    typer.echo(found.text())


@contextmanager
def _progress(as_json: bool) -> Iterator[Callable[[str, int], None]]:
    """A bar for each stage: the first one counts, and the ones after it know how many images to expect."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:17}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=as_json or not console.is_terminal, transient=True) as bars:
        stages: dict[str, TaskID] = {}
        reached: dict[str, int] = {}

        def step(stage: str, count: int) -> None:
            if stage not in stages:
                known = next(reversed(reached.values()), None)
                for one, number in reached.items():
                    bars.update(stages[one], completed=number, total=number)
                stages[stage] = bars.add_task(stage, total=known)
            reached[stage] = count
            if count % 100 == 0:
                bars.update(stages[stage], completed=count)

        yield step
        for stage, count in reached.items():
            bars.update(stages[stage], completed=count)


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    try:
        try:
            yield
        except OSError as error:
            raise refused_by_disk(error, "disk") from error
    except ConversionError as error:
        said = {"error": str(error), "item": error.item, "expected": error.expected, "cure": error.cure}
        print(orjson.dumps(said).decode() if as_json else f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
