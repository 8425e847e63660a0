"""What the commands of `dermloop bulk` do, once their options are read."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from converters.cli import tell_report
from converters.convert import LossError
from converters.dataset import Split
from converters.request import Request
from dermloop.bulk import conversion, engines, places, sources
from dermloop.bulk import work as working
from dermloop.bulk.choice import Choice, Engine
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


def run(home: Path | None, name: str, retry_failed: bool, choice: Choice, as_json: bool) -> None:
    """Has what is pending worked off."""
    settings = _settings(home)
    found = load_plan(settings.home, name)
    if retry_failed:
        found.forget_failed()
    if _worked_off(settings, found, choice, as_json):
        status(home, name, as_json)


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
    home: Path | None,
    source: str,
    target: str,
    request_of: Callable[[Path, Path], Request],
    shards: int,
    choice: Choice,
    report: Path | None,
    as_json: bool,
) -> None:
    """Converts in shards and joins them, or puts on the queue what is missing."""
    settings = _settings(home)
    request = request_of(places.brought(settings.home, source), places.local_target(settings.home, target))
    found = conversion.plan(settings.home, request, shards)
    if not _worked_off(settings, found, choice, as_json):
        return
    with _steps() as steps:

        def tell(stage: str, count: int) -> None:
            steps.progress(f"Joining: {stage}", count, found.items)

        try:
            joined = conversion.join(found, request, tell, lambda: places.deliver(request.target, target))
        except LossError as error:
            tell_report(error.report, report, as_json)
            raise
    places.clear(settings.home, source)
    tell_report(joined, report, as_json)


def evaluate(
    home: Path | None, model: str, dataset: str, split: str, config: str, shards: int, choice: Choice, as_json: bool
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
        if not _worked_off(settings, found, choice, as_json):
            return
        evaluation.measure(found, bundle, version, named_config(config).evaluation)
    shown(bundle.version, settings.home, str(version.root), split, config, as_json)


def _worked_off(settings: Settings, found: Plan, choice: Choice, as_json: bool) -> bool:
    """Whether every shard is done now; not where workers of the queue are to do what is missing."""
    if choice.engine is Engine.QUEUE and found.pending():
        with closing(working.open_queue(settings)) as queue:
            count = working.submit(found, queue, getpass.getuser())
        text = f"{count} shards of {found.name} are on the queue; the same command goes on when they are done."
        _print(as_json, {"name": found.name, "submitted": count}, text)
        return False
    with _steps() as steps:
        engines.work_off(settings, found, choice, steps.progress)
    return True


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
