"""One shard read by one model version: a line of JSON for each picture, appearing whole when all of it is done.

What a killed worker had read of a shard is kept beside it and gone on from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from dermloop.bulk.plan import Item, Plan
from ml_backend import answers, predictions
from ml_backend.bundle import load_bundle
from ml_backend.errors import FetchError
from ml_backend.fetch import ImageSource
from ml_backend.label_config import LabelConfig, read_config
from ml_backend.pipeline import Pipeline
from ml_backend.service import Analysis, Picture, PredictionService

_BATCH = 32
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ShardReport:
    """A shard that is done: how many of its pictures were read, how many could not be, and of how many."""

    shard: int
    read: int
    failed: int
    items: int


def open_pipeline(models: Path, plan: Plan, threads: int | None) -> Pipeline:
    """The pipeline of the version that a run was planned for, whoever is champion meanwhile; raises BundleError."""
    return Pipeline.open(load_bundle(models / plan.version), threads)


def run_shard(
    plan: Plan, shard: int, service: PredictionService, pipeline: Pipeline, source: ImageSource, tell: Tell
) -> ShardReport:
    """The report on a shard after every picture of it has a line in its results; again, it changes nothing.

    `tell` is told so many pictures of so many and may raise to stop; what was read until then is kept.
    """
    target = plan.results_file(shard)
    draft = target.with_suffix(".part")
    items = list(plan.read_items(shard))
    config = _config(plan, pipeline)
    if not plan.is_done(shard):
        target.parent.mkdir(parents=True, exist_ok=True)
        kept = _kept(draft)
        with draft.open("ab") as stream:
            for chunk in _chunks(items[kept:]):
                found = service.analyse([_picture(item, source) for item in chunk], pipeline=pipeline)
                stream.writelines(_lines(chunk, found, config))
                stream.flush()
                kept += len(chunk)
                tell(kept, len(items))
        draft.replace(target)
    rows = target.read_bytes().splitlines()
    failed = sum(b'"error":' in row for row in rows)
    return ShardReport(shard, len(rows) - failed, failed, len(items))


def _chunks(items: Sequence[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while chunk := list(islice(rest, _BATCH)):
        yield chunk


def _kept(draft: Path) -> int:
    """The number of whole lines of an earlier try, after its broken last line was cut off."""
    if not draft.is_file():
        return 0
    content = draft.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        draft.write_bytes(whole)
    return whole.count(b"\n")


def _picture(item: Item, source: ImageSource) -> Picture:
    if "://" in item.address or item.address.startswith("/data/"):
        return Picture(item.name, functools.partial(source.fetch, item.address, item.task))
    return Picture(item.name, functools.partial(_read, Path(item.address)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FetchError(f"file {path.name}", reason, "a readable file", "Restore it.") from error


def _config(plan: Plan, pipeline: Pipeline) -> LabelConfig | None:
    text = plan.label_config()
    return read_config(text, pipeline.bundle.taxonomy) if text else None


def _lines(chunk: Sequence[Item], found: Analysis, config: LabelConfig | None) -> Iterator[bytes]:
    """A line for each picture: what `/v1/analyze` says of it, or for a task what is to be stored in Label Studio."""
    for item, outcome in zip(chunk, found.outcomes, strict=True):
        row: dict[str, Any] = {"name": item.name, "model_version": found.bundle.version}
        if outcome.prediction is not None and config is not None:
            stored = predictions.entry(outcome.prediction, found.bundle.taxonomy, config)
            row |= {"task": item.task, "result": stored["result"], "score": stored["score"]}
        else:
            row |= answers.analysed(outcome, found.bundle)
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
