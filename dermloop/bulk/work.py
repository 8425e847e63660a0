"""One shard of any run, done by whoever is asked: this process, others beside it, a worker of the queue or of Dask."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from converters.errors import ConversionError
from dermloop.bulk import conversion
from dermloop.bulk.plan import Kind, Plan, load_plan
from dermloop.bulk.shards import ShardReport, open_pipeline, run_shard
from dermloop.errors import DermloopError
from dermloop.worker_metrics import WorkerMetrics
from ml_backend import composition
from ml_backend.composition import Parts
from ml_backend.errors import ServingError
from ml_backend.jobs import SHARDS, JobHandle, JobQueue
from ml_backend.pipeline import Pipeline
from ml_backend.settings import Settings, read_settings
from telemetry import program
from telemetry.page_server import given_out
from training.errors import TrainingError

KIND = "bulk"

Tell = Callable[[int, int], None]


class Worker:
    """Works off shards, several threads at a time; the model of the last run that read pictures stays open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = threading.Lock()
        self._parts: Parts | None = None
        self._opened: tuple[str, Pipeline] | None = None

    def do(self, plan: Plan, shard: int, tell: Tell) -> ShardReport:
        """The report on one shard; while another worker is at it, waits for that one."""
        with plan.held(shard):
            if plan.kind is Kind.CONVERT:
                return conversion.run_shard(plan, shard, tell)
            if plan.kind is Kind.EVALUATE:
                from dermloop.bulk import evaluation

                return evaluation.run_shard(plan, shard, tell)
            parts, pipeline = self._reading(plan)
            return run_shard(plan, shard, parts.service, pipeline, parts.source, tell)

    def work(self, handle: JobHandle) -> str:
        """What a worker of the queue does for a job; the subject is `run/shard`."""
        name, _, number = handle.job.subject.rpartition("/")
        plan = load_plan(self._settings.home, name)
        report = self.do(plan, int(number), lambda done, total: handle.progress(f"{done} of {total} pictures"))
        return f"{report.read} pictures done, {report.failed} failed"

    def close(self) -> None:
        """Lets go of what was opened."""
        if self._parts is not None:
            self._parts.close()

    def _reading(self, plan: Plan) -> tuple[Parts, Pipeline]:
        with self._turn:
            if self._parts is None:
                self._parts = composition.build(self._settings)
            if self._opened is None or self._opened[0] != plan.version:
                models = self._settings.models_folder
                self._opened = plan.version, open_pipeline(models, plan, self._settings.threads)
            return self._parts, self._opened[1]


@contextmanager
def worker(settings: Settings) -> Iterator[Worker]:
    """A worker for these settings, closed at the end."""
    own = Worker(settings)
    try:
        yield own
    finally:
        own.close()


def do_shard(home: str, name: str, shard: int, threads: int | None = None) -> str:
    """What went wrong with a shard of a run, in a sentence that any process understands; empty where nothing did.

    Settings are those of the process that does it; `threads` is for a model where they say nothing.
    """
    try:
        _kept(home, threads).do(load_plan(Path(home), name), shard, lambda done, total: None)
    except (ConversionError, DermloopError, ServingError, TrainingError) as error:
        return str(error)
    except OSError as error:
        return f"shard {shard}: {error.strerror or type(error).__name__} ({error.filename})"
    return ""


@functools.cache
def _kept(home: str, threads: int | None) -> Worker:
    """One worker for all the shards that a process is asked for; it ends with the process."""
    settings = read_settings(home=Path(home))
    return Worker(settings.model_copy(update={"threads": settings.threads or threads}))


def open_queue(settings: Settings) -> JobQueue:
    """The queue of shards."""
    return JobQueue.open(settings.jobs_address, SHARDS, settings.jobs_lease)


def submit(plan: Plan, queue: JobQueue, requested_by: str) -> int:
    """The number of shards that are on the queue now; asking twice adds nothing."""
    pending = plan.pending()
    for shard in pending:
        queue.request(KIND, f"{plan.items} pictures", requested_by, subject=f"{plan.name}/{shard}")
    return len(pending)


def consume(settings: Settings) -> None:
    """Works off the queue of shards until the process is told to stop."""
    with program.telling("bulk") as telling, worker(settings) as own, closing(open_queue(settings)) as queue:
        metrics = WorkerMetrics(queue, KIND)
        queue.register(KIND, metrics.timed(own.work))
        with given_out(metrics.page, telling.worker_metrics):
            queue.consume()
