"""What the job worker tells Prometheus: jobs on record, how long the oldest waits, how each ended and when."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

from ml_backend.errors import JobError
from ml_backend.jobs import Job, JobCancelled, JobHandle, JobQueue, JobState, Work
from telemetry import catalogue
from telemetry.metrics import Meter, State


class WorkerMetrics:
    """The counts of one worker that does jobs of one kind."""

    def __init__(self, queue: JobQueue, kind: str, clock: Callable[[], float] = time.time) -> None:
        self._meter = Meter(catalogue.JOB_SECONDS)
        for state in JobState:
            if state.final:
                self._meter.begin(catalogue.JOB_SECONDS, kind, state.value)
        self._queue = queue
        self._clock = clock

    def timed(self, work: Work) -> Work:
        """The same work, its time counted under how it ended."""

        def run(handle: JobHandle) -> str:
            began, outcome = time.monotonic(), JobState.FAILED
            try:
                detail = work(handle)
                outcome = JobState.SUCCEEDED
            except JobCancelled:
                outcome = JobState.CANCELLED
                raise
            finally:
                seconds = time.monotonic() - began
                self._meter.observe(catalogue.JOB_SECONDS, seconds, handle.job.kind, outcome.value)
            return detail

        return run

    def page(self) -> bytes:
        """The metrics page; empty where the queue's store is away."""
        try:
            return self._meter.page(states(self._queue.jobs(), self._clock()))
        except JobError:
            return b""


def states(jobs: tuple[Job, ...], now: float) -> Iterator[State]:
    """Jobs by kind and state, and the age of the oldest that waits (seconds; 0 where none does)."""
    counts = Counter((job.kind, job.state) for job in jobs)
    for kind in sorted({job.kind for job in jobs}):
        for state in JobState:
            yield State(catalogue.JOBS, counts[kind, state], (kind, state.value))
    waiting = [datetime.fromisoformat(job.created_at).timestamp() for job in jobs if job.state is JobState.PENDING]
    yield State(catalogue.JOB_OLDEST, max(now - min(waiting), 0.0) if waiting else 0.0)
