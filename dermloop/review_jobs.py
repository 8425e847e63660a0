"""The house's job queue as the review's dashboard needs it: what runs, how far it is, and a way to stop it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dermloop.run_progress import last_word, runs_since, training_share
from dermloop.worker import read_stages
from ml_backend.errors import JobError
from ml_backend.jobs import RETRAIN, Job, JobQueue, JobState
from review_workflow.errors import ReviewError
from review_workflow.training_jobs import TrainingJob

STAGES = ("freeze", "train", "evaluate", "gate", "promote", "refresh")
"""What a retraining goes through; the last two only where the gate lets the candidate pass."""

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
        runs = runs_since(self._home, job.started_at) if job.state is JobState.RUNNING else []
        return TrainingJob(
            id=job.id,
            state=job.state.value,
            reason=job.reason,
            requested_by=job.requested_by,
            asked=_moment(job.created_at),
            started=_moment(job.started_at),
            finished=_moment(job.finished_at),
            detail=last_word(runs) if runs and "train" not in stages else job.detail,
            stages=stages,
            done=_done(stages, training_share(runs)) if job.state is JobState.RUNNING else None,
            active=not job.state.final,
        )


def _done(stages: Sequence[str], training: float) -> float:
    """The share of a retraining that is done: training counts by its own progress, the rest by stages."""
    if "train" in stages:
        rest = len(set(stages) & set(STAGES[2:4])) / len(STAGES[2:4])
        return _TRAINING_SHARE + (1 - _TRAINING_SHARE) * rest
    return 0.05 * ("freeze" in stages) + (_TRAINING_SHARE - 0.05) * training


def _moment(text: str | None) -> str:
    return (text or "")[:19].replace("T", " ")
