"""Every metric of every process, once: the processes, the reference page and the alert rules' test read this table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100)
_JOB_SECONDS = (1, 10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_SHARES = tuple(number / 20 for number in range(1, 21))


class Kind(StrEnum):
    """What may happen to a metric: it only grows, it moves, or it is counted in steps."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its full name, its kind, who gives it out, what it is told apart by, and what it says."""

    name: str
    kind: Kind
    process: str
    about: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


REQUEST_SECONDS = Metric(
    "dermloop_request_seconds", Kind.HISTOGRAM, "backend, review", "Time to answer", ("route", "status"), _SECONDS
)
PICTURES = Metric(
    "dermloop_pictures_total", Kind.COUNTER, "backend, watcher", "Pictures by what became of them", ("outcome",)
)
LESIONS = Metric("dermloop_lesions_total", Kind.COUNTER, "backend, watcher", "Lesions found")
LESION_SCORE = Metric(
    "dermloop_lesion_score",
    Kind.HISTOGRAM,
    "backend, watcher",
    "Scores of the lesions found, by the version that found them: their shape tells of drift",
    ("version",),
    _SHARES,
)
READY = Metric("dermloop_ready", Kind.GAUGE, "backend, watcher", "1 where a champion serves")
FOLLOWED = Metric(
    "dermloop_champion_followed",
    Kind.GAUGE,
    "backend, watcher",
    "0 where the champion is refused, or cannot be asked for",
)
MODEL = Metric("dermloop_model_info", Kind.GAUGE, "backend, watcher", "1 for the serving version", ("version",))

JOBS = Metric("dermloop_jobs", Kind.GAUGE, "worker, bulk", "Jobs on record", ("kind", "state"))
JOB_OLDEST = Metric("dermloop_job_oldest_pending_seconds", Kind.GAUGE, "worker, bulk", "Age of the oldest waiting job")
JOB_SECONDS = Metric(
    "dermloop_job_seconds", Kind.HISTOGRAM, "worker, bulk", "Time that jobs took", ("kind", "outcome"), _JOB_SECONDS
)

IMAGES = Metric("dermloop_review_images", Kind.GAUGE, "review", "Images by review state", ("state",))
WAITING = Metric("dermloop_review_waiting", Kind.GAUGE, "review", "Work waiting for a reader", ("tier",))
OLDEST = Metric(
    "dermloop_review_oldest_seconds", Kind.GAUGE, "review", "Age of the oldest waiting piece of work", ("tier",)
)
OUTBOX = Metric("dermloop_review_outbox", Kind.GAUGE, "review", "Tasks still to be written to Label Studio")
OUTBOX_LAG = Metric("dermloop_review_outbox_lag_seconds", Kind.GAUGE, "review", "How overdue the oldest of them is")
INBOX = Metric("dermloop_review_inbox", Kind.GAUGE, "review", "Webhooks not followed yet")
SYNC_FAILING = Metric("dermloop_review_sync_failing", Kind.GAUGE, "review", "1 while Label Studio cannot be followed")
WEBHOOKS = Metric("dermloop_review_webhooks_total", Kind.COUNTER, "review", "Webhooks received", ("action",))
WEBHOOKS_LOST = Metric(
    "dermloop_review_webhooks_lost_total",
    Kind.COUNTER,
    "review",
    "Answers that reconciliation found and no webhook told of; counted over all replicas",
)
WEBHOOKS_EXPECTED = Metric(
    "dermloop_review_webhooks_expected", Kind.GAUGE, "review", "1 where Label Studio was told to send webhooks"
)
EVENTS = Metric(
    "dermloop_review_events_total",
    Kind.COUNTER,
    "review",
    "Entries of the audit log by what happened; the same in all replicas",
    ("happened",),
)

CATALOGUE: tuple[Metric, ...] = (
    REQUEST_SECONDS, PICTURES, LESIONS, LESION_SCORE, READY, FOLLOWED, MODEL,
    JOBS, JOB_OLDEST, JOB_SECONDS,
    IMAGES, WAITING, OLDEST, OUTBOX, OUTBOX_LAG, INBOX, SYNC_FAILING,
    WEBHOOKS, WEBHOOKS_LOST, WEBHOOKS_EXPECTED, EVENTS,
)  # fmt: skip
"""All of them, in the order of the reference page."""
