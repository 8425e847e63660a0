"""Retrainings as the dashboard shows them; the queue itself belongs to another floor and is handed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

EXTENSION = "training jobs"
"""Name under which the application holds its `TrainingJobs`; without one the page shows files only."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One asked-for retraining: times as text (UTC, empty where not yet), its share done in [0, 1] where known.

    `active` tells that it can still be cancelled; `stages` are those that it has ended.
    """

    id: str
    state: str
    reason: str
    requested_by: str
    asked: str
    started: str
    finished: str
    detail: str
    stages: tuple[str, ...]
    done: float | None
    active: bool


class TrainingJobs(Protocol):
    """The queue of retrainings; its refusals are ReviewErrors."""

    def newest(self, limit: int) -> Sequence[TrainingJob]:
        """The newest retrainings, newest first."""

    def cancel(self, job_id: str) -> None:
        """Cancels a retraining that waits, asks one that runs to stop; raises ReviewError where it is over."""

    def ask(self, reason: str, by: str) -> str:
        """The id of the retraining that waits or runs, or of a new one."""
