"""What the training commands share: their options, the dataset and settings that these name, how they report."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from converters.dataset import DatasetVersion, Split
    from training.config import TrainingConfig
    from training.runs import Progress

Home = Annotated[Path, typer.Option(envvar="DERMLOOP_HOME", help="Folder of the local stack.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Config = Annotated[str, typer.Option(help="TOML file, or a recipe: first, loop, full, vgg16, mobilenetv2stn.")]
Data = Annotated[
    str,
    typer.Option(help="Frozen dataset: folder, first digits of its digest, or s3:// address; the newest by default."),
]
Shared = Annotated[
    str,
    typer.Option("--registry", envvar="DERMLOOP_REGISTRY", help="A registry that machines share: s3://bucket/prefix."),
]
HOME = Path(".dermloop")


def named_config(name: str) -> TrainingConfig:
    """The settings of a TOML file, or of a recipe by its name."""
    from training import config as configs

    return configs.read(Path(name)) if name.endswith(".toml") else configs.recipe(name)


def named_split(name: str) -> Split:
    """The split of a name; raises DataError naming those that there are."""
    from converters.dataset import Split
    from training.errors import DataError

    if name not in tuple(Split):
        raise DataError("--split", name, f"one of {', '.join(Split)}", "Name one of these.")
    return Split(name)


def named_version(home: Path, name: str) -> DatasetVersion:
    """The named frozen version (folder, digest, or `s3://…/datasets/<digest>`, which is fetched), or the newest."""
    from converters import dataset
    from training.errors import DataError

    if name.startswith("s3://"):
        from training.remote import RemoteRegistry

        address, _, digest = name.rstrip("/").rpartition("/datasets/")
        return RemoteRegistry(address).pull_dataset(digest, home / "datasets")
    if name and (Path(name) / dataset.VERSION).is_file():
        return dataset.load(Path(name))
    headers = sorted((home / "datasets").glob(f"*/{dataset.VERSION}"), key=lambda path: path.stat().st_mtime_ns)
    found = [path.parent for path in headers if path.parent.name.startswith(name[:16])]
    if not found or (name and len(found) > 1):
        known = ", ".join(path.parent.name for path in headers) or "none yet"
        raise DataError("dataset", name, f"one of: {known}", "Run `dermloop freeze`, or name a version.")
    return dataset.load(found[-1])


def tell(as_json: bool, row: dict[str, Any], text: str) -> None:
    """Prints a line of JSON, NaN as null, or the same in words."""
    typer.echo(json.dumps(_without_nan(row), default=str) if as_json else text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and value != value else value


def resumed_version(home: Path, dataset: str, run: str) -> DatasetVersion:
    """The named version; without a name that of the run to take up again, or without one the newest."""
    from training import runs

    if run and not dataset:
        folder = home / "runs" / run
        dataset = runs.read_status(folder).dataset if (folder / runs.STATUS).is_file() else ""
    return named_version(home, dataset)


@contextmanager
def shown_progress(as_json: bool) -> Iterator[Progress]:
    """A progress bar for each part on the error stream, or silence where JSON is asked for.

    Ctrl-C inside the block ends the command with status 130 and a sentence on how to go on, where there is one.
    """
    from training.runs import silent

    with _told_interruption():
        if as_json:
            yield silent
        else:
            with _bars() as show:
                yield show


@contextmanager
def _told_interruption() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        typer.secho(f"Interrupted. {stop}".strip(), fg=typer.colors.RED, err=True)
        raise typer.Exit(130) from stop


@contextmanager
def _bars() -> Iterator[Progress]:
    """Bars that appear with the first word of progress: a command with nothing to wait for prints none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    words = TextColumn("{task.description:10}"), TextColumn("{task.fields[text]}")
    columns = (words[0], BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), words[1])
    console = Console(file=sys.stderr)
    bars = Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False)
    tasks: dict[str, Any] = {}

    def show(part: str, done: int, total: int, text: str) -> None:
        if part not in tasks:
            bars.start()
            tasks[part] = bars.add_task(part, total=total, text=text)
        bars.update(tasks[part], completed=done, total=total, text=text)

    try:
        yield show
    finally:
        if tasks:
            bars.stop()
