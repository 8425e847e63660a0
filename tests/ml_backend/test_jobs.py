"""A retraining is asked for once, done once, survives a killed worker, and can be cancelled."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_backend.errors import JobError
from ml_backend.jobs import RETRAIN, JobHandle, JobQueue, JobState, request_retrain


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    opened = JobQueue.open(tmp_path / "jobs.db")
    yield opened
    opened.close()


def test_asking_twice_gives_the_same_job(queue: JobQueue, tmp_path: Path) -> None:
    first = request_retrain(queue, "approved 20", "qa")
    elsewhere = JobQueue.open(tmp_path / "jobs.db")
    assert request_retrain(elsewhere, "button", "ml") == first
    elsewhere.close()
    assert [job.id for job in queue.jobs()] == [first]


def test_a_job_runs_once_tells_progress_and_makes_room_for_the_next(queue: JobQueue) -> None:
    seen: list[str] = []

    def work(handle: JobHandle) -> str:
        handle.progress("epoch 1 of 2")
        seen.append(queue.get(handle.job.id).detail)
        return "promoted tiny-1"

    queue.register(RETRAIN, work)
    first = request_retrain(queue, "approved 20", "qa")
    assert queue.work_off() == 1
    done = queue.get(first)
    assert (done.state, done.detail, seen) == (JobState.SUCCEEDED, "promoted tiny-1", ["epoch 1 of 2"])
    assert request_retrain(queue, "again", "qa") != first


def test_a_failure_is_on_record_with_its_reason(queue: JobQueue) -> None:
    def work(handle: JobHandle) -> str:
        raise RuntimeError("disk full")

    queue.register(RETRAIN, work)
    job_id = request_retrain(queue, "approved 20", "qa")
    queue.work_off()
    assert (queue.get(job_id).state, queue.get(job_id).detail) == (JobState.FAILED, "RuntimeError: disk full")


def test_a_pending_job_can_be_cancelled_and_never_runs(queue: JobQueue) -> None:
    queue.register(RETRAIN, lambda handle: pytest.fail("it ran"))
    job_id = request_retrain(queue, "approved 20", "qa")
    assert queue.cancel(job_id).state is JobState.CANCELLED
    queue.work_off()
    assert queue.get(job_id).state is JobState.CANCELLED
    with pytest.raises(JobError, match="cancelled"):
        queue.cancel(job_id)


def test_a_running_job_stops_at_its_next_progress(queue: JobQueue) -> None:
    def work(handle: JobHandle) -> str:
        queue.cancel(handle.job.id)
        handle.progress("never told")
        return "never reached"

    queue.register(RETRAIN, work)
    job_id = request_retrain(queue, "approved 20", "qa")
    queue.work_off()
    assert queue.get(job_id).state is JobState.CANCELLED


def test_a_job_that_a_killed_worker_left_is_done_by_the_next(queue: JobQueue, tmp_path: Path) -> None:
    job_id = request_retrain(queue, "approved 20", "qa")
    queue._huey.dequeue()
    successor = JobQueue.open(tmp_path / "jobs.db")
    successor.register(RETRAIN, lambda handle: "done")
    assert [job.id for job in successor.recover()] == [job_id]
    assert successor.recover() == ()
    successor.work_off()
    assert successor.get(job_id).state is JobState.SUCCEEDED
    successor.close()


def test_what_is_stored_is_json(queue: JobQueue, tmp_path: Path) -> None:
    request_retrain(queue, "approved 20", "qa")
    with sqlite3.connect(tmp_path / "jobs.db") as rows:
        stored = [bytes(data) for (data,) in rows.execute("select data from task union all select value from kv")]
    rows.close()
    assert stored and all(value.startswith(b"{") for value in stored)
