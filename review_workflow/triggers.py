"""When approved labels are worth a retraining: decided purely from what is known, one job at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from review_workflow.policy import Training


class Cause(StrEnum):
    """What started a retraining."""

    ENOUGH_APPROVED = "enough newly approved labels"
    SCHEDULE = "schedule"
    BY_HAND = "by hand"


@dataclass(frozen=True, slots=True)
class Progress:
    """What the decision depends on; times are seconds since the epoch, None where it never happened."""

    approved_since_last: int
    last_approval: float | None = None
    last_started: float | None = None
    running: bool = False
    asked_by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Trigger:
    """Whether to start now, and why or why not in one sentence."""

    cause: Cause | None
    why: str


def decide(policy: Training, progress: Progress, now: float) -> Trigger:
    """Whether a retraining starts at `now`: never while one runs, by hand at once, otherwise when it is quiet."""
    if progress.running:
        return Trigger(None, "A retraining is running; one at a time.")
    if progress.asked_by_hand:
        return Trigger(Cause.BY_HAND, "Asked for by hand.")
    if progress.approved_since_last == 0:
        return Trigger(None, "Nothing was approved since the last retraining.")
    cause = _cause(policy, progress, now)
    if cause is None:
        return Trigger(None, _missing(policy, progress))
    quiet = now - (progress.last_approval or now)
    if quiet < 60 * policy.debounce_minutes:
        return Trigger(None, f"Approvals are still coming in; waiting for {policy.debounce_minutes:g} quiet minutes.")
    return Trigger(cause, f"{progress.approved_since_last} newly approved labels ({cause}).")


def _cause(policy: Training, progress: Progress, now: float) -> Cause | None:
    if 0 < policy.after_approved <= progress.approved_since_last:
        return Cause.ENOUGH_APPROVED
    elapsed = now - (progress.last_started or 0.0)
    if policy.every_hours > 0 and elapsed >= 3600 * policy.every_hours:
        return Cause.SCHEDULE
    return None


def _missing(policy: Training, progress: Progress) -> str:
    wanted = policy.after_approved or "no number of"
    return f"{progress.approved_since_last} of {wanted} newly approved labels."
