"""The `dermloop` command: the local stack, images in, and every package's own commands under one roof."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

from converters.cli import app as converters_app
from converters.errors import ConversionError
from dermloop.aws.cli import app as aws_app
from dermloop.aws.cli import sagemaker
from dermloop.bulk.cli import app as bulk_app
from dermloop.errors import DermloopError
from dermloop.home import Home
from dermloop.loop.cli import app as loop_app
from dermloop.server_cli import app as server_app
from dermloop.stack.environment import adopt
from dermloop.stack_cli import app as stack_app
from ml_backend.cli import app as serving_app
from ml_backend.errors import ServingError
from review_workflow.cli import app as review_app
from review_workflow.errors import ReviewError
from telemetry.errors import TelemetryError
from training import targets
from training.cli import app as training_app
from training.errors import TrainingError
from training.export_cli import app as export_app
from training.registry_cli import app as registry_app

ERRORS = (ConversionError, DermloopError, ReviewError, ServingError, TelemetryError, TrainingError)
"""The root error of every package; each becomes one sentence and exit status 1."""

_DEBUG = "DERMLOOP_DEBUG"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)

app = typer.Typer(
    help="Annotate and train on dermatology images. Supports annotation and research; no diagnosis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(stack_app)
app.add_typer(server_app)
app.add_typer(bulk_app, name="bulk")
app.add_typer(review_app, name="review")
app.add_typer(serving_app)
app.add_typer(training_app)
app.add_typer(export_app)
app.add_typer(registry_app)
app.add_typer(loop_app)
app.add_typer(aws_app, name="aws")
app.add_typer(converters_app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dermloop {importlib.metadata.version('dermloop')}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and end."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the whole traceback of an error."),
) -> None:
    if debug:
        os.environ[_DEBUG] = "1"
    targets.offer("sagemaker", sagemaker)
    adopt(Home.at())


@app.command()
def worker() -> None:
    """Work off the queue of retrainings until interrupted (started by `dermloop up`)."""
    from dermloop.worker import main as work

    work()


@app.command()
def freeze(
    home: Path | None = typer.Option(None, help="Folder of the local stack (DERMLOOP_HOME)."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as one JSON object."),
) -> None:
    """Freeze all approved labels into a dataset version, split by patient, named by its content."""
    from dermloop.commands import freeze_approved

    freeze_approved(home, as_json)


def main() -> None:
    """Entry point of the `dermloop` command."""
    try:
        app()
    except ERRORS as error:
        if os.environ.get(_DEBUG):
            raise
        fail(str(error))
    except OSError as error:
        if os.environ.get(_DEBUG) or error.errno not in _DISK:
            raise
        place = f"{error.filename}: " if error.filename else ""
        fail(f"{place}{error.strerror}. Free space or grant rights, then give the command again.")
    except KeyboardInterrupt:
        fail("Interrupted.", 130)


def fail(sentence: str, status: int = 1) -> NoReturn:
    """Ends the program with one red sentence on standard error."""
    typer.secho(sentence, fg=typer.colors.RED, err=True)
    sys.exit(status)
