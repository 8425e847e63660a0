"""Commands for a server: `provision`, `backup`, `restore`."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer(help="Look after a server.")

HOME = typer.Option(None, help="Folder of the server's state (DERMLOOP_HOME).")
AS_JSON = typer.Option(False, "--json", help="Print one JSON object instead of text.")


@app.command()
def provision(
    home: Path | None = HOME,
    people: Path | None = typer.Option(None, help="CSV table with email, role, first_name, last_name."),
    patience: float = typer.Option(300.0, min=0, help="Seconds to wait for Label Studio and the ML backend."),
    as_json: bool = AS_JSON,
) -> None:
    """Set a server up: accounts, roles, projects, webhooks, the ML backend; again, it adds what is missing."""
    from dermloop.server_commands import provision as run

    run(home, people, patience, as_json)


@app.command()
def backup(
    target: Path = typer.Argument(..., help="File to write, or a folder, which gets one named by the moment."),
    home: Path | None = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Write all state into one archive while everything runs: databases, pictures, models, datasets, Label Studio."""
    from dermloop.server_commands import backup as run

    run(target, home, as_json)


@app.command()
def restore(
    archive: Path = typer.Argument(..., help="An archive that `dermloop backup` wrote."),
    home: Path | None = HOME,
    check: bool = typer.Option(False, "--check", help="Only read the archive and verify every digest in it."),
    replace: bool = typer.Option(False, "--replace", help="Replace what is there; kept beside it until all is back."),
    as_json: bool = AS_JSON,
) -> None:
    """Give an archive back to an empty home and empty databases, and verify the audit log afterwards."""
    from dermloop.server_commands import restore as run

    run(archive, home, check, replace, as_json)
