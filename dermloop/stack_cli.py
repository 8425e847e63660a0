"""Commands of the local stack: `up`, `down`, `status`, `logs`, `ingest`, `demo`."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer(help="The local stack.")

HOME = typer.Option(None, help="Folder of the local stack (DERMLOOP_HOME; .dermloop here by default).")
AS_JSON = typer.Option(False, "--json", help="Print one JSON object instead of text.")


@app.command()
def up(
    home: Path | None = HOME,
    images: Path | None = typer.Option(None, help="Folder of JPEG and PNG files to import; synthetic ones without it."),
    metadata: Path | None = typer.Option(None, help="CSV table on these images; DIR/metadata.csv by default."),
    demo_count: int = typer.Option(60, min=1, help="How many synthetic images are drawn where none are named."),
    port_label_studio: int = typer.Option(8080, help="Port of Label Studio."),
    port_backend: int = typer.Option(9090, help="Port of the ML backend."),
    port_review: int = typer.Option(9091, help="Port of the review service."),
    no_train: bool = typer.Option(False, "--no-train", help="Do not train a first model where there is none."),
    detach: bool = typer.Option(False, "--detach", help="Come back once all is ready; `dermloop down` stops it."),
) -> None:
    """Start Label Studio, the ML backend, the review service and the job worker; Ctrl-C stops them all."""
    from dermloop.commands import up as run
    from dermloop.stack import Ports
    from dermloop.up import UpOptions

    options = UpOptions(images, metadata, demo_count, not no_train)
    run(home, Ports(port_label_studio, port_backend, port_review), options, detach)


@app.command()
def down(home: Path | None = HOME) -> None:
    """Stop everything that `dermloop up` started on a home folder."""
    from dermloop.commands import down as run

    run(home)


@app.command()
def status(home: Path | None = HOME, as_json: bool = AS_JSON) -> None:
    """Show which programs run, where, and how far the review is."""
    from dermloop.commands import status as run

    run(home, as_json)


@app.command()
def logs(
    program: str = typer.Argument("", help="label-studio, ml-backend, review or worker; all without it."),
    home: Path | None = HOME,
    lines: int = typer.Option(20, min=1, help="How many of the last lines."),
) -> None:
    """Print the last lines of the programs' logs."""
    from dermloop.commands import logs as run

    run(home, program, lines)


@app.command()
def ingest(
    images: Path = typer.Argument(..., help="Folder of JPEG and PNG files."),
    metadata: Path | None = typer.Option(None, help="CSV table on these images; DIR/metadata.csv by default."),
    home: Path | None = HOME,
    limit: int | None = typer.Option(None, min=1, help="Take the first so many files by name."),
    strict: bool = typer.Option(False, "--strict", help="End with status 1 where anything was left out."),
    as_json: bool = AS_JSON,
) -> None:
    """Take images into the home and register them for review; a second time adds nothing."""
    from dermloop.commands import ingest_folder

    ingest_folder(images, metadata, home, limit, strict, as_json)


@app.command()
def demo(
    folder: Path = typer.Argument(..., help="Where images, masks and metadata.csv are written."),
    count: int = typer.Option(60, min=1, help="How many pictures."),
    seed: int = typer.Option(1, min=0, help="Names the series; the same seed draws the same pictures."),
    size: int = typer.Option(384, min=32, help="Side of each picture in pixels."),
    as_json: bool = AS_JSON,
) -> None:
    """Draw synthetic skin pictures with exact boxes, masks and labels."""
    from dermloop.commands import draw

    draw(folder, count, seed, size, as_json)
