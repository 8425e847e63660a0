"""Who reads the shards: this process, or any number of workers on the job queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dermloop.bulk.plan import Plan, load_plan
from dermloop.bulk.shards import ShardReport, open_pipeline, run_shard
from ml_backend import composition
from ml_backend.composition import Parts
from ml_backend.jobs import JobHandle, JobQueue
from ml_backend.pipeline import Pipeline
from ml_backend.settings import Settings

KIND = "bulk"
QUEUE = "dermloop-bulk"
"""A queue of its own: a retraining never waits for shards."""

Tell = Callable[[int, int], None]


@dataclass
class Reader:
    """Reads shards; the model of the last run stays open for the next shard."""

    parts: Parts
    home: Path
    opened: tuple[str, Pipeline] | None = None

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
        report = self.read(plan, int(number), lambda done, total: handle.progress(f"{done} of {total} pictures"))
        return f"{report.read} pictures read, {report.failed} failed"


@contextmanager
def reader(settings: Settings) -> Iterator[Reader]:
    """A reader for these settings, closed at the end."""
    parts = composition.build(settings)
    try:
        yield Reader(parts, settings.home)
    finally:
        parts.close()


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
