"""`dermloop bulk …`: very many pictures in shards."""

from __future__ import annotations

from pathlib import Path

import typer

from dermloop.bulk.choice import Choice, Engine

app = typer.Typer(help="Read, convert or measure on very many pictures in shards.", no_args_is_help=True)

HOME = typer.Option(None, help="Folder of the server's state (DERMLOOP_HOME).")
AS_JSON = typer.Option(False, "--json", help="Print one JSON object instead of text.")
NAME = typer.Argument(..., help="Name of the run.")
ENGINE = typer.Option(
    Engine.LOCAL,
    "--engine",
    envvar="DERMLOOP_BULK_ENGINE",
    help="Who does the shards: this machine, workers of the job queue (`dermloop bulk work`), or Dask.",
)
PROCESSES = typer.Option(1, "--processes", min=1, help="How many shards at a time on this machine.")
SCHEDULER = typer.Option(
    "",
    "--scheduler",
    envvar="DERMLOOP_BULK_SCHEDULER",
    help="Address of Dask's scheduler, such as tcp://host:8786; left out, Dask works on this machine.",
)


@app.command()
def plan(
    name: str = typer.Argument(..., help="A name for the run: letters, digits, hyphens."),
    source: str = typer.Argument(..., help="A folder, a file with an address a line, s3://bucket/prefix, project:N."),
    shards: int = typer.Option(100, min=1, help="How many pieces of work."),
    home: Path | None = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Spread the pictures of a source over shards, to be read by the champion of this moment."""
    from dermloop.bulk import commands

    commands.plan(home, name, source, shards, as_json)


@app.command()
def run(
    name: str = NAME,
    retry_failed: bool = typer.Option(False, "--retry-failed", help="Read shards with unreadable pictures again."),
    engine: Engine = ENGINE,
    processes: int = PROCESSES,
    scheduler: str = SCHEDULER,
    home: Path | None = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Work off all shards that are not done; interrupted, the same command goes on, with this engine or another."""
    from dermloop.bulk import commands

    commands.run(home, name, retry_failed, Choice(engine, processes, scheduler), as_json)


@app.command()
def work(home: Path | None = HOME) -> None:
    """Work off shards from the job queue until interrupted; several machines may do so on one queue and one home."""
    from dermloop.bulk import commands

    commands.work(home)


@app.command()
def status(name: str = NAME, home: Path | None = HOME, as_json: bool = AS_JSON) -> None:
    """Show how far a run is."""
    from dermloop.bulk import commands

    commands.status(home, name, as_json)


@app.command()
def push(name: str = NAME, home: Path | None = HOME, as_json: bool = AS_JSON) -> None:
    """Bring the readings of a finished run on project:N into Label Studio, those that are missing."""
    from dermloop.bulk import commands

    commands.push(home, name, as_json)


@app.command()
def convert(
    source: str = typer.Argument(..., help="File, folder or s3://bucket/prefix to read."),
    target: str = typer.Argument(..., help="New folder or s3://bucket/prefix to write."),
    writer: str = typer.Option(..., "--to", help="Format to write; `dermloop dataset formats` lists them."),
    reader: str | None = typer.Option(None, "--from", help="Format of the source; found out when left out."),
    taxonomy: Path | None = typer.Option(None, help="TOML file of classes; the shipped seven by default."),
    images: Path | None = typer.Option(None, help="Folder of the images that the source names."),
    split: str | None = typer.Option(None, help="Shares such as 70/15/15 for images that have no split."),
    seed: int = typer.Option(0, help="Order in which patients are dealt into splits."),
    truth_policy: Path | None = typer.Option(None, help="TOML file: whose answers count for how much."),
    image_key: str | None = typer.Option(None, help="Key of the image address in Label Studio's task data."),
    prefix: str = typer.Option("", help="Goes before image paths in formats that hold addresses."),
    content_names: bool = typer.Option(False, help="Name images by content; original names are left out."),
    allow_loss: bool = typer.Option(False, help="Go on where labels are lost or refused; the list is kept."),
    read_back: bool = typer.Option(True, help="Read the target back and compare every label."),
    report: Path | None = typer.Option(None, help="Write the whole report to this JSON file."),
    shards: int = typer.Option(16, min=1, help="How many pieces of work."),
    engine: Engine = ENGINE,
    processes: int = PROCESSES,
    scheduler: str = SCHEDULER,
    home: Path | None = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Convert a dataset in shards to what `dermloop convert` writes; interrupted, the same command goes on."""
    from dataclasses import replace

    from converters import taxonomy as taxonomies
    from converters.cli import request_of, split_policy
    from converters.formats.contract import WriteSettings
    from converters.naming import Names
    from converters.request import Request
    from dermloop.bulk import commands

    classes = taxonomies.read(taxonomy)
    folder = images.absolute() if images else None
    settings = WriteSettings(classes, prefix=prefix)
    names = Names.CONTENT if content_names else Names.ORIGINAL
    policy = split_policy(split, seed)

    def made(place: Path, end: Path) -> Request:
        plain = request_of(place, end, reader, writer, classes, folder, truth_policy, image_key, settings)
        return replace(plain, split=policy, names=names, allow_loss=allow_loss, read_back=read_back)

    choice = Choice(engine, processes, scheduler)
    commands.convert(home, source, target, made, shards, choice, report, as_json)


@app.command()
def evaluate(
    model: str = typer.Argument("champion", help="Model version, or `champion`."),
    dataset: str = typer.Option("", help="Frozen dataset: folder or first digits; the newest by default."),
    split: str = typer.Option("test", help="train, val or test."),
    config: str = typer.Option("full", help="TOML file, or a recipe."),
    shards: int = typer.Option(16, min=1, help="How many pieces of work."),
    engine: Engine = ENGINE,
    processes: int = PROCESSES,
    scheduler: str = SCHEDULER,
    home: Path | None = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Measure a bundle in shards, as `dermloop evaluate` does; figures are reckoned once, over all answers."""
    from dermloop.bulk import commands

    choice = Choice(engine, processes, scheduler)
    commands.evaluate(home, model, dataset, split, config, shards, choice, as_json)
