"""The command `dermloop loop`."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer()


@app.command()
def loop(
    images: Path | None = typer.Option(None, help="Folder of images to play with; synthetic ones by default."),
    truth: Path | None = typer.Option(None, help="Their metadata table, with boxes and diagnoses."),
    limit: int | None = typer.Option(None, min=20, help="Take at most so many images, by name."),
    home: Path | None = typer.Option(None, help="Folder of the stack; a loop folder in DERMLOOP_HOME by default."),
    demo_count: int = typer.Option(90, min=30, help="Synthetic images to draw where no folder is named."),
    seed: int = typer.Option(7, help="Seed of the readers' mistakes and disagreements."),
    fresh: bool = typer.Option(True, help="Begin with empty projects; --no-fresh goes on with what is there."),
) -> None:
    """Play the whole loop without hands against the real programs, one line of JSON for each stage.

    Three roles act through Label Studio's API with their own tokens; what they do follows the given truth, with seeded
    mistakes. Exit status 0 only when every stage held. Progress goes to standard error.
    """
    from dermloop.loop.command import LoopRequest, play

    held = play(LoopRequest(images, truth, limit, home, demo_count, seed, fresh))
    raise typer.Exit(0 if held else 1)
