"""What the commands of `dermloop bulk` do, once their options are read."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from converters.cli import tell_report
from converters.convert import LossError, Request
from converters.dataset import Split
from dermloop.bulk import conversion, sources
from dermloop.bulk import work as working
from dermloop.bulk.plan import Plan, load_plan, make_plan, progress
from dermloop.bulk.pushing import push as push_readings
from dermloop.console import Steps
from dermloop.errors import BulkError
from dermloop.home import Home
from ml_backend.bundle import champion_version, load_bundle
from ml_backend.label_studio import LabelStudioClient
from ml_backend.s3 import ObjectStore
from ml_backend.settings import Settings, read_settings


def plan(home: Path | None, name: str, source: str, shards: int, as_json: bool) -> None:
    """Plans a run and prints it."""
    settings = _settings(home)
    version = champion_version(settings.models_folder)
    if version is None:
        raise BulkError("model", "none", "a champion", "Promote a model first.")
    if source.startswith(sources.PROJECT):
        with closing(_client(settings)) as client:
            bundle = load_bundle(settings.models_folder / version)
            project, items = sources.tasks(client, sources.project_number(source), bundle)
            made = make_plan(settings.home, name, version, items, shards, project)
    else:
        items = sources.items(source, ObjectStore(settings.s3_endpoint))
        made = make_plan(settings.home, name, version, items, shards)
    row = {"name": name, "version": version, "shards": made.shards, "items": made.items}
    _print(as_json, row, f"{made.items} pictures in {made.shards} shards, to be read by {version}")


def run(home: Path | None, name: str, retry_failed: bool, as_json: bool) -> None:
    """Reads what is pending in this process."""
    settings = _settings(home)
    found = load_plan(settings.home, name)
    if retry_failed:
        found.forget_failed()
    pending = found.pending()
    with _steps() as steps, working.reader(settings) as own:
        for number, shard in enumerate(pending, start=1):
            what = f"Shard {number} of {len(pending)}:"
            own.do(found, shard, lambda done, total, what=what: steps.progress(what, done, total))  # type: ignore[misc]
    status(home, name, as_json)


def submit(home: Path | None, name: str, as_json: bool) -> None:
    """Puts what is pending on the queue."""
    settings = _settings(home)
    with closing(working.open_queue(settings)) as queue:
        count = working.submit(load_plan(settings.home, name), queue, getpass.getuser())
    _print(as_json, {"submitted": count}, f"{count} shards are on the queue.")


def work(home: Path | None) -> None:
    """Works off the queue."""
    working.consume(_settings(home))


def status(home: Path | None, name: str, as_json: bool) -> None:
    """Prints how far a run is."""
    found = load_plan(_settings(home).home, name)
    far = progress(found)
    text = f"{far.done} of {far.shards} shards done: {far.read} pictures read, {far.failed} failed. {found.root}"
    _print(as_json, {**asdict(far), "items": found.items, "results": str(found.root / "results")}, text)


def push(home: Path | None, name: str, as_json: bool) -> None:
    """Brings readings into Label Studio."""
    settings = _settings(home)
    with closing(_client(settings)) as client, _steps() as steps:
        found = load_plan(settings.home, name)
        count = push_readings(found, client, lambda done, total: steps.progress("Storing", done, total))
    _print(as_json, {"stored": count}, f"{count} predictions stored in Label Studio.")


def convert(
    home: Path | None, request: Request, shards: int, processes: int, queued: bool, report: Path | None, as_json: bool
) -> None:
    """Converts in shards and joins them, or puts on the queue what is missing."""
    settings = _settings(home)
    found = conversion.plan(settings.home, request, shards)
    if queued and found.pending():
        _queue(settings, found, as_json)
        return
    with _steps() as steps:
        if found.pending():
            working.beside(settings.home, found, processes, lambda done, total: steps.progress("Shards", done, total))
        try:
            joined = conversion.join(
                found, request, lambda stage, count: steps.progress(f"Joining: {stage}", count, found.items)
            )
        except LossError as error:
            tell_report(error.report, report, as_json)
            raise
    tell_report(joined, report, as_json)


def evaluate(
    home: Path | None, model: str, dataset: str, split: str, config: str, shards: int, queued: bool, as_json: bool
) -> None:
    """Measures a bundle in shards, or puts on the queue what is missing."""
    from dermloop.bulk import evaluation
    from training import registry
    from training.cli import evaluate as shown
    from training.command_options import named_config, named_version

    settings = _settings(home)
    bundle = registry.load_bundle(settings.home / "models", model)
    version, part = named_version(settings.home, dataset), Split(split)
    if registry.load_report(bundle, part, version.split_digest(part)) is None:
        found = evaluation.plan(settings.home, bundle, version, part, shards)
        if queued and found.pending():
            _queue(settings, found, as_json)
            return
        with _steps() as steps:
            for shard in found.pending():
                what = f"Shard {shard + 1} of {found.shards}:"
                evaluation.run_shard(found, shard, lambda done, total, what=what: steps.progress(what, done, total))  # type: ignore[misc]
        evaluation.measure(found, bundle, version, named_config(config).evaluation)
    shown(bundle.version, settings.home, str(version.root), split, config, as_json)


def _queue(settings: Settings, found: Plan, as_json: bool) -> None:
    with closing(working.open_queue(settings)) as queue:
        count = working.submit(found, queue, getpass.getuser())
    text = f"{count} shards of {found.name} are on the queue; the same command joins them when they are done."
    _print(as_json, {"name": found.name, "submitted": count}, text)


def _settings(home: Path | None) -> Settings:
    return read_settings(home=Home.at(home).root)


def _client(settings: Settings) -> LabelStudioClient:
    if settings.label_studio_url is None or settings.label_studio_token is None:
        names = "DERMLOOP_ML_LABEL_STUDIO_URL and DERMLOOP_ML_LABEL_STUDIO_TOKEN"
        raise BulkError(names, "nothing", "Label Studio's address and a token", "Set both.")
    return LabelStudioClient(settings.label_studio_url, settings.label_studio_token.get_secret_value())


@contextmanager
def _steps() -> Iterator[Steps]:
    steps = Steps(Console(stderr=True))
    try:
        yield steps
    finally:
        steps.end()


def _print(as_json: bool, row: dict[str, object], text: str) -> None:
    print(json.dumps(row) if as_json else text)
