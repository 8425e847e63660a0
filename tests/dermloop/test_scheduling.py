"""A retraining is queued once when the policy's number of approvals has come in and it has gone quiet."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dermloop.scheduling import consider
from ml_backend.jobs import RETRAIN, JobQueue
from review_workflow import policy
from review_workflow.policy import Policy
from review_workflow.triggers import Cause, Progress

NOW = time.time()


@dataclass
class Approvals:
    """A review with so many approvals, the last one a while ago."""

    count: int
    minutes_ago: float = 60.0
    policy: Policy = field(default_factory=lambda: policy.read(None))

    def progress(self, since: float | None, running: bool = False) -> Progress:
        after = [at for at in self._moments() if at > (since or 0)]
        return Progress(len(after), max(after, default=None), since, running)

    def _moments(self) -> list[float]:
        return [NOW - 60 * self.minutes_ago - n for n in range(self.count)]


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return JobQueue.open(tmp_path / "jobs.db")


def ask(approvals: Approvals, queue: JobQueue) -> Cause | None:
    return consider(approvals, queue, NOW).cause  # type: ignore[arg-type]


def test_enough_quiet_approvals_queue_one_retraining(queue: JobQueue) -> None:
    approvals = Approvals(policy.read(None).training.after_approved)
    assert ask(approvals, queue) is Cause.ENOUGH_APPROVED
    assert ask(approvals, queue) is None
    assert [job.kind for job in queue.jobs()] == [RETRAIN]


def test_too_few_approvals_queue_nothing(queue: JobQueue) -> None:
    assert ask(Approvals(policy.read(None).training.after_approved - 1), queue) is None
    assert queue.jobs() == ()


def test_approvals_that_still_come_in_are_waited_for(queue: JobQueue) -> None:
    assert ask(Approvals(policy.read(None).training.after_approved, minutes_ago=1), queue) is None


def test_a_failed_retraining_is_not_repeated_without_new_approvals(queue: JobQueue) -> None:
    approvals = Approvals(policy.read(None).training.after_approved)
    ask(approvals, queue)
    queue.work_off()
    assert queue.jobs()[0].state.final
    assert ask(approvals, queue) is None
