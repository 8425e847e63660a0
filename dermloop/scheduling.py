"""Retraining asked for by itself: after enough approvals or on a schedule, as the review policy says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime

from ml_backend.jobs import RETRAIN, Job, JobQueue, JobState
from review_workflow.errors import ReviewError
from review_workflow.service import ReviewService
from review_workflow.triggers import Trigger, decide

PAUSE_SECONDS = 30.0
REQUESTED_BY = "schedule"
_log = logging.getLogger(__name__)


def consider(service: ReviewService, queue: JobQueue, now: float) -> Trigger:
    """The policy's decision at this moment (epoch seconds); a retraining is queued where it says so."""
    jobs = [job for job in queue.jobs() if job.kind == RETRAIN]
    running = any(not job.state.final for job in jobs)
    started = last_started(jobs)
    trigger = decide(service.policy.training, service.progress(started, running), now)
    if trigger.cause is not None:
        queue.request(RETRAIN, trigger.why, REQUESTED_BY)
    return trigger


def last_started(jobs: list[Job]) -> float | None:
    """When the newest retraining that ran began, in epoch seconds; None where none ever did or all were cancelled."""
    moments = [job.started_at for job in jobs if job.started_at and job.state is not JobState.CANCELLED]
    return max((datetime.fromisoformat(moment).timestamp() for moment in moments), default=None)


def keep_considering(open_service: Callable[[], ReviewService], queue: JobQueue, stop: threading.Event) -> None:
    """Considers a retraining now and then until told to stop; a database that is away is tried again later."""
    service = open_service()
    try:
        while not stop.wait(PAUSE_SECONDS):
            try:
                trigger = consider(service, queue, time.time())
            except ReviewError as error:
                _log.warning("cannot decide on a retraining: %s", error)
            else:
                if trigger.cause is not None:
                    _log.info("retraining queued: %s", trigger.why)
    finally:
        service.close()
