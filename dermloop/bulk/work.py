"""Who works off the shards: this process, others beside it, or any number of workers on the job queue."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

from converters.errors import ConversionError
from dermloop.bulk import conversion
from dermloop.bulk.plan import Kind, Plan, load_plan
from dermloop.bulk.shards import ShardReport, open_pipeline, run_shard
from dermloop.errors import BulkError, DermloopError
from ml_backend import composition
from ml_backend.composition import Parts
from ml_backend.jobs import JobHandle, JobQueue
from ml_backend.pipeline import Pipeline
from ml_backend.settings import Settings

KIND = "bulk"
QUEUE = "dermloop-bulk"
"""A queue of its own: a retraining never waits for shards."""

Tell = Callable[[int, int], None]
_AGAIN = "Cure it and run the same command again: shards that are done stay."


@dataclass
class Reader:
    """Works off shards; the model of the last run that read pictures stays open for the next shard."""

    parts: Parts
    home: Path
    opened: tuple[str, Pipeline] | None = None

    def do(self, plan: Plan, shard: int, tell: Tell) -> ShardReport:
        """The report on one shard of any run."""
        if plan.kind is Kind.CONVERT:
            return conversion.run_shard(plan, shard, tell)
        if plan.kind is Kind.EVALUATE:
            from dermloop.bulk import evaluation

            return evaluation.run_shard(plan, shard, tell)
        return self.read(plan, shard, tell)

    def read(self, plan: Plan, shard: int, tell: Tell) -> ShardReport:
        """The report on one shard."""
        if self.opened is None or self.opened[0] != plan.version:
            models = self.parts.settings.models_folder
            self.opened = plan.version, open_pipeline(models, plan, self.parts.settings.threads)
        return run_shard(plan, shard, self.parts.service, self.opened[1], self.parts.source, tell)

    def work(self, handle: JobHandle) -> str:
        """What a worker does for a job; the subject is `run/shard`."""
        name, _, number = handle.job.subject.rpartition("/")
        plan = load_plan(self.home, name)
        report = self.do(plan, int(number), lambda done, total: handle.progress(f"{done} of {total} pictures"))
        return f"{report.read} pictures done, {report.failed} failed"


@contextmanager
def reader(settings: Settings) -> Iterator[Reader]:
    """A reader for these settings, closed at the end."""
    parts = composition.build(settings)
    try:
        yield Reader(parts, settings.home)
    finally:
        parts.close()


def beside(home: Path, plan: Plan, processes: int, tell: Tell) -> None:
    """Works off the pending shards of a conversion in so many processes; raises BulkError where one fails."""
    pending = plan.pending()
    count = max(1, min(processes, len(pending)))
    with ProcessPoolExecutor(count, get_context("spawn"), initializer=_end_with_parent) as pool:
        waiting = [pool.submit(_convert, home, plan.name, shard) for shard in pending]
        try:
            for number, done in enumerate(as_completed(waiting), start=1):
                if sentence := done.result():
                    raise BulkError(f"run {plan.name}", sentence, "shards that convert", _AGAIN)
                tell(number, len(pending))
        except BrokenProcessPool as error:
            raise BulkError(f"run {plan.name}", "a process was killed", "processes that end", _AGAIN) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Has this process end when the one that started it was killed."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _convert(home: Path, name: str, shard: int) -> str:
    """What went wrong with a shard, in a sentence; empty where nothing did."""
    try:
        conversion.run_shard(load_plan(home, name), shard, lambda done, total: None)
    except (ConversionError, DermloopError) as error:
        return str(error)
    return ""


def open_queue(settings: Settings) -> JobQueue:
    """The queue of shards."""
    return JobQueue.open(settings.jobs_address, QUEUE, settings.jobs_lease)


def submit(plan: Plan, queue: JobQueue, requested_by: str) -> int:
    """The number of shards that are on the queue now; asking twice adds nothing."""
    pending = plan.pending()
    for shard in pending:
        queue.request(KIND, f"{plan.items} pictures", requested_by, subject=f"{plan.name}/{shard}")
    return len(pending)


def consume(settings: Settings) -> None:
    """Works off the queue of shards until the process is told to stop."""
    with reader(settings) as own:
        queue = open_queue(settings)
        queue.register(KIND, own.work)
        try:
            queue.consume()
        finally:
            queue.close()
