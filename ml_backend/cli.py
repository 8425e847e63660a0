"""Commands of the serving side: `serve`, `preannotate`, `jobs`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from ml_backend.composition import Parts

app = typer.Typer(help="Serve the champion and pre-annotate projects.", no_args_is_help=True)


@app.command()
def serve(
    home: Path | None = typer.Option(None, help="Folder of the local stack (DERMLOOP_ML_HOME)."),
    host: str | None = typer.Option(None, help="Address to listen on (DERMLOOP_ML_HOST)."),
    port: int | None = typer.Option(None, help="Port to listen on (DERMLOOP_ML_PORT)."),
) -> None:
    """Serve the champion to Label Studio and over REST, until interrupted."""
    from ml_backend.errors import ServingError
    from ml_backend.settings import read_settings
    from ml_backend.wsgi import serve as run

    try:
        run(read_settings(home=home, host=host, port=port))
    except ServingError as error:
        _fail(str(error))


@app.command()
def preannotate(
    project: int = typer.Option(..., help="Number of the Label Studio project."),
    home: Path | None = typer.Option(None, help="Folder of the local stack (DERMLOOP_ML_HOME)."),
    url: str | None = typer.Option(None, help="Label Studio's address (DERMLOOP_ML_LABEL_STUDIO_URL)."),
    chunk: int = typer.Option(50, min=1, help="Tasks predicted and stored at a time."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as one JSON object."),
) -> None:
    """Push the champion's predictions to every task of a project that has none of this version yet.

    The token comes from DERMLOOP_ML_LABEL_STUDIO_TOKEN. Interrupted, run it again: it goes on where it stopped.
    """
    from ml_backend import composition
    from ml_backend import preannotate as work
    from ml_backend.errors import ServingError
    from ml_backend.label_studio import LabelStudioClient
    from ml_backend.settings import read_settings

    try:
        settings = read_settings(home=home, label_studio_url=url)
        if settings.label_studio_url is None or settings.label_studio_token is None:
            _fail("Set DERMLOOP_ML_LABEL_STUDIO_URL and DERMLOOP_ML_LABEL_STUDIO_TOKEN.")
        client = LabelStudioClient(settings.label_studio_url, settings.label_studio_token.get_secret_value())
        parts = composition.build(settings)
        report = work.preannotate(client, project, parts.service, parts.source, _progress, chunk, parts.link)
        client.close()
        parts.close()
    except ServingError as error:
        _fail(str(error))
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        typer.echo(f"{report.model_version}: {report.predicted} predicted, {report.current} already current.")
        for task, reason in report.failed:
            typer.echo(f"task {task}: {reason}", err=True)
    if report.failed:
        raise typer.Exit(1)


@app.command("watch-bucket")
def watch_bucket(
    bucket: str = typer.Option(..., help="Bucket to look through."),
    prefix: str = typer.Option("", help="Only keys that begin so."),
    home: Path | None = typer.Option(None, help="Folder of the local stack (DERMLOOP_ML_HOME)."),
    every: float = typer.Option(5.0, min=0.1, help="Seconds between two looks."),
    once: bool = typer.Option(False, help="Look once, then end."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object a line."),
) -> None:
    """Read every picture in a bucket that has no current result, and store the result beside it."""
    import time

    from ml_backend import composition
    from ml_backend.errors import ServingError
    from ml_backend.objects import Poller
    from ml_backend.s3 import ObjectStore
    from ml_backend.settings import read_settings

    problems: list[str] = []
    try:
        settings = read_settings(home=home)
        parts = composition.build(settings)
        store, count = ObjectStore(settings.s3_endpoint), parts.metrics.analysed
        poller = Poller(store, parts.service, bucket, prefix, settings.max_bytes, count)
        with nullcontext() if once else _watched(parts):
            while True:
                problems.clear()
                for outcome in poller.once(lambda key, error: problems.append(f"{key}: {error}")):
                    typer.echo(json.dumps(asdict(outcome)) if as_json else f"{outcome.key}: {outcome.state.value}")
                for problem in problems:
                    typer.echo(problem, err=True)
                if once:
                    break
                time.sleep(every)
    except ServingError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        return
    if problems:
        raise typer.Exit(1)


@app.command()
def jobs(
    home: Path | None = typer.Option(None, help="Folder of the local stack (DERMLOOP_ML_HOME)."),
    cancel: str | None = typer.Option(None, help="Cancel the job of this id."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object a line."),
) -> None:
    """List background jobs, newest first, or cancel one."""
    from ml_backend.errors import ServingError
    from ml_backend.jobs import JobQueue
    from ml_backend.settings import read_settings

    try:
        queue = JobQueue.open(read_settings(home=home).jobs_address)
        found = [queue.cancel(cancel)] if cancel else list(queue.jobs())
    except ServingError as error:
        _fail(str(error))
    for job in found:
        line = f"{job.id}  {job.kind}  {job.state.value:<9}  {job.created_at}  {job.reason}  {job.detail}"
        typer.echo(json.dumps(asdict(job)) if as_json else line.rstrip())
    queue.close()


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r{done} of {total}", err=True, nl=done == total)


@contextmanager
def _watched(parts: Parts) -> Iterator[None]:
    """Log lines, traces and a metrics page for a watcher that stays."""
    from telemetry import program
    from telemetry.page_server import given_out

    with program.telling("watcher") as own, given_out(lambda: parts.metrics.page(parts.host.state), own.worker_metrics):
        yield


def _fail(reason: str) -> NoReturn:
    typer.echo(reason, err=True)
    raise typer.Exit(1)
