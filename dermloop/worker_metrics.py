"""What the job worker tells Prometheus: jobs on record, how long the oldest waits, how each ended and when."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dermloop.errors import DermloopError
from ml_backend.errors import JobError
from ml_backend.jobs import Job, JobCancelled, JobHandle, JobQueue, JobState, Work
from telemetry import catalogue
from telemetry.metrics import CONTENT_TYPE, Meter, State


class WorkerMetrics:
    """The counts of one worker."""

    def __init__(self, queue: JobQueue, clock: Callable[[], float] = time.time) -> None:
        self._meter = Meter(catalogue.JOB_SECONDS)
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
        """The metrics page; raises JobError where the queue's store is away."""
        return self._meter.page(states(self._queue.jobs(), self._clock()))


def states(jobs: tuple[Job, ...], now: float) -> Iterator[State]:
    """Jobs by kind and state, and the age of the oldest that waits (seconds; 0 where none does)."""
    counts = Counter((job.kind, job.state) for job in jobs)
    for kind in sorted({job.kind for job in jobs}):
        for state in JobState:
            yield State(catalogue.JOBS, counts[kind, state], (kind, state.value))
    waiting = [datetime.fromisoformat(job.created_at).timestamp() for job in jobs if job.state is JobState.PENDING]
    yield State(catalogue.JOB_OLDEST, max(now - min(waiting), 0.0) if waiting else 0.0)


def give_out(metrics: WorkerMetrics, address: str) -> ThreadingHTTPServer:
    """The server that answers `/metrics` at `host:port`, already serving in a thread of its own.

    Raises DermloopError where the address is malformed or taken.
    """
    host, _, port = address.rpartition(":")
    try:
        server = ThreadingHTTPServer((host or "127.0.0.1", int(port)), _handler(metrics))
    except (OSError, ValueError, OverflowError) as error:
        cure = "Name a free one, such as 127.0.0.1:9092."
        raise DermloopError("DERMLOOP_WORKER_METRICS", address, "host:port to listen on", cure) from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def _handler(metrics: WorkerMetrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, page = (200, _page(metrics)) if self.path == "/metrics" else (404, b"only /metrics is here\n")
            self.send_response(status if page else 503)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing: these questions come every few seconds."""

    return Handler


def _page(metrics: WorkerMetrics) -> bytes:
    try:
        return metrics.page()
    except JobError:
        return b""
