"""The house's job queue as the review's dashboard needs it: what runs, how far it is, and a way to stop it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from dermloop.worker import read_stages
from ml_backend.errors import JobError
from ml_backend.jobs import RETRAIN, Job, JobQueue, JobState
from review_workflow.errors import ReviewError
from review_workflow.training_jobs import TrainingJob

STAGES = ("freeze", "train", "evaluate", "gate", "promote", "refresh")
"""What a retraining goes through; the last two only where the gate lets the candidate pass."""

_PARTS = 2
"""A training has a detector and a classifier."""

_TRAINING_SHARE = 0.8
"""How much of a retraining's time the training itself takes, for the progress bar."""


class QueueJobs:
    """The retrainings of one queue, with what their runs left in the home folder."""

    def __init__(self, queue: JobQueue, home: Path) -> None:
        self._queue = queue
        self._home = home

    def newest(self, limit: int) -> Sequence[TrainingJob]:
        """The newest retrainings, newest first."""
        jobs = [job for job in self._queue.jobs() if job.kind == RETRAIN]
        return [self._shown(job) for job in jobs[:limit]]

    def cancel(self, job_id: str) -> None:
        """Cancels a retraining that waits, asks one that runs to stop; raises ReviewError where it is over."""
        try:
            self._queue.cancel(job_id)
        except JobError as error:
            raise ReviewError(error.item, error.value, error.expected, error.cure) from error

    def ask(self, reason: str, by: str) -> str:
        """The id of the retraining that waits or runs, or of a new one."""
        return self._queue.request(RETRAIN, reason, by).id

    def _shown(self, job: Job) -> TrainingJob:
        stages = tuple(line.stage for line in read_stages(self._home, job.id))
        runs = _runs(self._home, job.started_at) if job.state is JobState.RUNNING else []
        return TrainingJob(
            id=job.id,
            state=job.state.value,
            reason=job.reason,
            requested_by=job.requested_by,
            asked=_moment(job.created_at),
            started=_moment(job.started_at),
            finished=_moment(job.finished_at),
            detail=str(runs[-1].get("text", "")) if runs and "train" not in stages else job.detail,
            stages=stages,
            done=_done(stages, _run_share(runs)) if job.state is JobState.RUNNING else None,
            active=not job.state.final,
        )


def _done(stages: Sequence[str], training: float) -> float:
    """The share of a retraining that is done: training counts by its own progress, the rest by stages."""
    if "train" in stages:
        rest = len(set(stages) & set(STAGES[2:4])) / len(STAGES[2:4])
        return _TRAINING_SHARE + (1 - _TRAINING_SHARE) * rest
    return 0.05 * ("freeze" in stages) + (_TRAINING_SHARE - 0.05) * training


def _run_share(runs: Sequence[Mapping[str, Any]]) -> float:
    """How far the parts of a training are, in [0, 1]: each has a run of its own."""
    return min(sum(_share(run) for run in runs) / _PARTS, 1.0)


def _share(run: Mapping[str, Any]) -> float:
    total = int(run.get("total") or 0)
    return 1.0 if run.get("state") == "done" else min(int(run.get("done") or 0) / total, 1.0) if total else 0.0


def _runs(home: Path, since: str | None) -> list[Mapping[str, Any]]:
    """The statuses of the runs that began after a moment, oldest first; runs are named by the time they began."""
    newest = sorted((home / "runs").glob("*/status.json"), reverse=True)[:_PARTS]
    found = [_status(path) for path in reversed(newest)]
    return [run for run in found if since and str(run.get("started", "")) >= since]


def _status(path: Path) -> Mapping[str, Any]:
    try:
        row = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return row if isinstance(row, dict) else {}


def _moment(text: str | None) -> str:
    return (text or "")[:19].replace("T", " ")
