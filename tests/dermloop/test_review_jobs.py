"""The house's retrainings on the review's dashboard: how far they are, and a way to stop them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from dermloop.review_jobs import QueueJobs
from dermloop.stages import StageLine
from dermloop.worker import stages_path
from ml_backend.jobs import RETRAIN, JobHandle, JobQueue
from review_workflow.errors import ReviewError


def a_run(home: Path, name: str, **status: object) -> None:
    folder = home / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_bytes(orjson.dumps({"started": "9999", "state": "running", **status}))


def test_a_waiting_retraining_is_shown_and_cancelled(tmp_path: Path) -> None:
    jobs = QueueJobs(JobQueue.open(tmp_path / "jobs.db"), tmp_path)
    job_id = jobs.ask("by hand", "engineer@example.org")
    (shown,) = jobs.newest(10)
    assert (shown.id, shown.state, shown.active, shown.done) == (job_id, "pending", True, None)
    jobs.cancel(job_id)
    (shown,) = jobs.newest(10)
    assert (shown.state, shown.active) == ("cancelled", False)
    with pytest.raises(ReviewError, match="cancelled"):
        jobs.cancel(job_id)


def test_progress_grows_with_runs_and_stages_and_a_running_job_can_be_stopped(tmp_path: Path) -> None:
    queue = JobQueue.open(tmp_path / "jobs.db")
    jobs, seen = QueueJobs(queue, tmp_path), []

    def work(handle: JobHandle) -> str:
        def look() -> None:
            (shown,) = jobs.newest(1)
            seen.append((round(shown.done or 0, 3), shown.detail))

        look()
        a_run(tmp_path, "20260101-1-detector", done=5, total=10, text="detector: epoch 5")
        look()
        a_run(tmp_path, "20260101-1-detector", state="done", done=10, total=10)
        a_run(tmp_path, "20260101-2-classifier", done=1, total=2, text="classifier: epoch 1")
        look()
        stages = stages_path(tmp_path, handle.job.id)
        stages.parent.mkdir(parents=True)
        stages.write_bytes(b"".join(StageLine(name, 1.0).encode() for name in ("freeze", "train", "evaluate")))
        handle.progress("evaluate done")
        look()
        jobs.cancel(handle.job.id)
        handle.progress("gate")
        raise AssertionError("a cancelled job goes on")

    queue.register(RETRAIN, work)
    jobs.ask("by hand", "engineer@example.org")
    queue.work_off()
    assert seen == [
        (0.0, ""),
        (0.188, "detector: epoch 5 (25 % of the training)"),
        (0.562, "classifier: epoch 1 (75 % of the training)"),
        (0.9, "evaluate done"),
    ]
    (shown,) = jobs.newest(1)
    assert (shown.state, shown.stages) == ("cancelled", ("freeze", "train", "evaluate"))
    queue.close()
