"""A job's process knows for whose request it works, whoever asked and wherever it runs."""

from __future__ import annotations

import sys
from pathlib import Path

from dermloop.worker import run_job
from dermloop.worker_metrics import states
from ml_backend.jobs import Job, JobQueue, JobState
from telemetry import catalogue, request_id
from telemetry.metrics import State

TOLD = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ['DERMLOOP_REQUEST_ID'])"


def test_the_id_of_the_request_reaches_the_process_that_works_it_off(tmp_path: Path) -> None:
    queue, told = JobQueue.open(tmp_path / "jobs.db"), tmp_path / "told"
    with request_id.bound("request-1234"):
        queue.request("retrain", "asked for", "label-studio")
    queue.close()
    later = JobQueue.open(tmp_path / "jobs.db")
    later.register("retrain", lambda handle: run_job(handle, tmp_path, [sys.executable, "-c", TOLD, str(told)]))
    assert later.work_off() == 1 and told.read_text() == "request-1234"
    later.close()


def test_the_oldest_waiting_job_is_told_by_its_age_and_jobs_by_their_state() -> None:
    def job(state: JobState, created: str) -> Job:
        return Job(created, "retrain", state, "", "", created)

    jobs = (
        job(JobState.PENDING, "2026-01-01T00:00:00+00:00"),
        job(JobState.PENDING, "2026-01-01T00:00:30+00:00"),
        job(JobState.FAILED, "2025-01-01T00:00:00+00:00"),
    )
    now = 1_767_225_660.0
    found = {(state.metric, *state.labels): state.value for state in states(jobs, now)}
    assert found[catalogue.JOB_OLDEST,] == 60.0
    assert found[catalogue.JOBS, "retrain", "pending"] == 2 and found[catalogue.JOBS, "retrain", "failed"] == 1
    assert list(states((), now)) == [State(catalogue.JOB_OLDEST, 0.0)]
