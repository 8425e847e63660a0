"""The job worker: takes retrainings off the queue one at a time and runs each in a process of its own.

A process of its own gives the memory of the training libraries back, can be cancelled, and cannot take the worker down.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from dermloop.errors import JobFailedError
from dermloop.home import Home
from dermloop.run_progress import last_word, runs_since
from dermloop.scheduling import keep_considering
from dermloop.stages import StageLine
from dermloop.worker_metrics import WorkerMetrics
from ml_backend.jobs import RETRAIN, JobCancelled, JobHandle, JobQueue
from ml_backend.settings import read_settings as read_serving_settings
from review_workflow.service import ReviewService, open_service
from review_workflow.settings import read as read_review_settings
from telemetry import logs, program, request_id, tracing
from telemetry import settings as telemetry_settings
from telemetry.page_server import given_out

STAGES_FILE = "stages.jsonl"
_POLL_SECONDS = 1.0
_log = logging.getLogger(__name__)


def stages_path(home: Path, job_id: str) -> Path:
    """Where a job's stage lines are written as they come."""
    return home / "runs" / job_id / STAGES_FILE


def read_stages(home: Path, job_id: str) -> tuple[StageLine, ...]:
    """The stages that a job has reported so far, in order; an unfinished last line is left for the next look."""
    path = stages_path(home, job_id)
    if not path.is_file():
        return ()
    whole = path.read_bytes().rpartition(b"\n")[0]
    return tuple(StageLine.decode(line) for line in whole.splitlines() if line)


def run_job(handle: JobHandle, home: Path, command: Sequence[str]) -> str:
    """Runs a job's process to its end, passing its stage lines on; the answer is a sentence for the job's record.

    Raises JobFailedError with the last lines of the process's own words where it fails, and JobCancelled where
    somebody cancelled the job, after the process has been stopped.
    """
    folder = stages_path(home, handle.job.id).parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "job.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=_environment(), stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
        watcher = threading.Thread(target=_watch, args=(handle, process, home), daemon=True)
        watcher.start()
        try:
            last = _pass_on(handle, process, folder / STAGES_FILE)
        finally:
            _stop(process)
            watcher.join()
    if process.returncode != 0:
        handle.progress("stopping")
        raise JobFailedError(f"job {handle.job.id}", process.returncode, "exit status 0", _tail(folder / "job.log"))
    return last


def consume(home: Path, command: Sequence[str] | None = None) -> None:
    """Works off the queue of a home until the process is told to stop; `command` is another program for a retraining.

    Several workers may do so on one Redis queue and one home: each retraining is done by one of them.
    """
    settings = read_serving_settings(home=home)
    queue = JobQueue.open(settings.jobs_address, lease=settings.jobs_lease)
    asked = command or [sys.executable, "-m", "dermloop.retraining", "--home", str(home)]
    metrics = WorkerMetrics(queue, RETRAIN)
    queue.register(RETRAIN, metrics.timed(lambda handle: _told(handle, home, asked)))
    stop = threading.Event()
    clock = threading.Thread(target=keep_considering, args=(_review, queue, stop), name="schedule", daemon=True)
    clock.start()
    _log.info("worker ready at %s", home)
    try:
        with given_out(metrics.page, telemetry_settings.read().worker_metrics):
            queue.consume()
    finally:
        stop.set()


def _told(handle: JobHandle, home: Path, command: Sequence[str]) -> str:
    """`run_job`, with its begin and its end in the log and in the trace."""
    facts = logs.told(job=handle.job.id, kind=handle.job.kind)
    _log.info("job begins", extra=facts)
    try:
        with tracing.span(f"job {handle.job.kind}"):
            detail = run_job(handle, home, command)
    except Exception:
        _log.exception("job failed", extra=facts)
        raise
    _log.info("job ended: %s", detail, extra=facts)
    return detail


def _environment() -> dict[str, str]:
    """What a job's process is told: our environment, and whose request it works for."""
    return {**os.environ, request_id.VARIABLE: request_id.current(), tracing.VARIABLE: tracing.parent()}


def _review() -> ReviewService:
    return open_service(read_review_settings())


def _pass_on(handle: JobHandle, process: subprocess.Popen[bytes], path: Path) -> str:
    last = "nothing was reported"
    with path.open("ab") as stages, cast(IO[bytes], process.stdout) as stream:
        for raw in stream:
            stages.write(raw)
            stages.flush()
            line = StageLine.decode(raw)
            last = f"{line.stage} {'done' if line.holds else 'failed: ' + '; '.join(line.failures)}"
            if not handle.cancelled():
                handle.progress(last)
    process.wait()
    return last


def _watch(handle: JobHandle, process: subprocess.Popen[bytes], home: Path) -> None:
    """Stops the process when the job is cancelled; while it trains, puts the training's own words on record."""
    told = ""
    while process.poll() is None:
        if handle.cancelled():
            _stop(process)
            return
        try:
            process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            told = _tell(handle, home, told)


def _tell(handle: JobHandle, home: Path, told: str) -> str:
    """What was said last of the training, put on record where it is new."""
    if any(line.stage == "train" for line in read_stages(home, handle.job.id)):
        return told
    word = last_word(runs_since(home, handle.job.started_at))
    if word and word != told:
        with suppress(JobCancelled):
            handle.progress(word)
    return word


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _tail(path: Path, lines: int = 5) -> str:
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return f"Its last words: {' / '.join(text) or '(none)'}. The whole log: {path}."


def main() -> None:
    """Entry point of `python -m dermloop.worker`."""
    with program.telling("worker"):
        consume(Home.at().root)


if __name__ == "__main__":
    main()
