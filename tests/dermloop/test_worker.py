"""The worker runs a job in a process of its own, passes its stages on, and stops it when asked."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from dermloop.stages import StageLine
from dermloop.worker import read_stages, run_job
from ml_backend.jobs import RETRAIN, JobQueue, JobState

TWO_STAGES = """
import sys
sys.stdout.buffer.write(b'{"stage":"freeze","seconds":1.0,"ok":true,"images":3}\\n')
sys.stdout.buffer.write(b'{"stage":"train","seconds":2.0,"ok":true}\\n')
"""
FAILING = "import sys; print('disk full', file=sys.stderr); sys.exit(3)"
SLEEPING = "import time; time.sleep(60)"


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return JobQueue.open(tmp_path / "jobs.db")


def start(queue: JobQueue, home: Path, program: str) -> str:
    queue.register(RETRAIN, lambda handle: run_job(handle, home, [sys.executable, "-c", program]))
    return queue.request(RETRAIN, "test", "nobody").id


def test_the_stages_of_a_job_are_kept_as_they_come(queue: JobQueue, tmp_path: Path) -> None:
    job = start(queue, tmp_path, TWO_STAGES)
    queue.work_off()
    assert queue.get(job).state is JobState.SUCCEEDED
    assert read_stages(tmp_path, job) == (StageLine("freeze", 1.0, {"images": 3}), StageLine("train", 2.0))


def test_a_failed_job_repeats_its_last_words(queue: JobQueue, tmp_path: Path) -> None:
    job = start(queue, tmp_path, FAILING)
    queue.work_off()
    assert queue.get(job).state is JobState.FAILED
    assert "disk full" in queue.get(job).detail


def test_cancelling_stops_the_process(queue: JobQueue, tmp_path: Path) -> None:
    job = start(queue, tmp_path, SLEEPING)
    began = time.monotonic()
    worker = threading.Thread(target=queue.work_off)
    worker.start()
    while queue.get(job).state is not JobState.RUNNING:
        time.sleep(0.05)
    queue.cancel(job)
    worker.join(20)
    assert queue.get(job).state is JobState.CANCELLED
    assert time.monotonic() - began < 20


def test_what_the_training_says_is_the_word_on_a_running_job(queue: JobQueue, tmp_path: Path) -> None:
    job = start(queue, tmp_path, SLEEPING)
    worker = threading.Thread(target=queue.work_off)
    worker.start()
    run = tmp_path / "runs" / "20260101-1-detector"
    run.mkdir(parents=True)
    status = b'{"started": "9999", "state": "running", "done": 3, "total": 12, "text": "detector: epoch 3"}'
    (run / "status.json").write_bytes(status)
    deadline = time.monotonic() + 60
    while queue.get(job).detail != "detector: epoch 3 (12 % of the training)" and time.monotonic() < deadline:
        time.sleep(0.1)
    detail = queue.get(job).detail
    queue.cancel(job)
    worker.join(60)
    assert detail == "detector: epoch 3 (12 % of the training)"


def test_a_half_written_last_line_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a" / "stages.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(StageLine("freeze", 1.0).encode() + b'{"stage":"tr')
    assert read_stages(tmp_path, "a") == (StageLine("freeze", 1.0),)
