"""`dermloop bulk …`: very many pictures in shards."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer(help="Read very many pictures in shards.", no_args_is_help=True)

HOME = typer.Option(None, help="Folder of the server's state (DERMLOOP_HOME).")
AS_JSON = typer.Option(False, "--json", help="Print one JSON object instead of text.")
NAME = typer.Argument(..., help="Name of the run.")


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
    home: Path | None = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Read all shards that are not done, here and now; interrupted, it goes on where it stopped."""
    from dermloop.bulk import commands

    commands.run(home, name, retry_failed, as_json)


@app.command()
def submit(name: str = NAME, home: Path | None = HOME, as_json: bool = AS_JSON) -> None:
    """Put all shards that are not done on the job queue, for any number of `dermloop bulk work`."""
    from dermloop.bulk import commands

    commands.submit(home, name, as_json)


@app.command()
def work(home: Path | None = HOME) -> None:
    """Read shards from the job queue until interrupted; several machines may do so on one queue and one home."""
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
