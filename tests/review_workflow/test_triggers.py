"""When a retraining starts by itself."""

from __future__ import annotations

import pytest

from review_workflow.policy import Training
from review_workflow.triggers import Cause, Progress, decide

POLICY = Training(after_approved=50, every_hours=24.0, debounce_minutes=10.0)
NOW = 1_000_000.0
LONG_AGO = NOW - 3600.0


@pytest.mark.parametrize(
    ("progress", "cause"),
    [
        (Progress(50, LONG_AGO, LONG_AGO), Cause.ENOUGH_APPROVED),
        (Progress(49, LONG_AGO, LONG_AGO), None),
        (Progress(50, NOW - 599, LONG_AGO), None),
        (Progress(50, NOW - 600, LONG_AGO), Cause.ENOUGH_APPROVED),
        (Progress(1, LONG_AGO, NOW - 24 * 3600), Cause.SCHEDULE),
        (Progress(1, LONG_AGO, None), Cause.SCHEDULE),
        (Progress(0, None, None), None),
        (Progress(0, None, None, asked_by_hand=True), Cause.BY_HAND),
        (Progress(99, LONG_AGO, None, running=True, asked_by_hand=True), None),
    ],
)
def test_a_retraining_starts_when_it_is_worth_it_and_quiet(progress: Progress, cause: Cause | None) -> None:
    assert decide(POLICY, progress, NOW).cause is cause


def test_switched_off_triggers_never_start() -> None:
    assert decide(Training(0, 0.0, 0.0), Progress(10_000, LONG_AGO, LONG_AGO), NOW).cause is None
