"""What can be measured of the review, in Prometheus' words; no person, image or patient is ever a label."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from converters.label_studio.controls import Tier
from review_workflow.service import ReviewService
from review_workflow.states import Happened, ReviewState
from review_workflow.store.vitals import Vitals
from telemetry import catalogue
from telemetry.catalogue import Metric
from telemetry.metrics import Meter, State


class ReviewMetrics:
    """The counts of one review service; audit entries are read once each, so that looking stays cheap."""

    def __init__(self, service: ReviewService, expects_webhooks: bool) -> None:
        self.meter = Meter(catalogue.WEBHOOKS)
        self._service = service
        self._expects = expects_webhooks
        self._happened: Counter[str] = Counter({happened.value: 0 for happened in Happened})
        self._seq = 0
        self._turn = threading.Lock()

    def received(self, action: str) -> None:
        """Counts one webhook."""
        self.meter.count(catalogue.WEBHOOKS, action if action.replace("_", "").isalpha() else "other")

    def page(self, failing: bool) -> bytes:
        """The metrics page; `failing` says that Label Studio cannot be followed. Raises StoreError."""
        with self._turn:
            vitals = self._service.vitals(self._seq)
            self._happened.update(vitals.happened)
            self._seq = vitals.seq
            states = [*self._images(), *_queues(vitals), *self._traffic(vitals, failing)]
            states += [State(catalogue.EVENTS, count, (name,)) for name, count in sorted(self._happened.items())]
        return self.meter.page(states)

    def _images(self) -> Iterator[State]:
        found = self._service.states()
        for state in ReviewState:
            yield State(catalogue.IMAGES, found.get(state.value, 0), (state.value,))

    def _traffic(self, vitals: Vitals, failing: bool) -> Iterator[State]:
        values: dict[Metric, float] = {
            catalogue.OUTBOX: vitals.outbox,
            catalogue.OUTBOX_LAG: vitals.overdue,
            catalogue.INBOX: vitals.inbox,
            catalogue.SYNC_FAILING: failing,
            catalogue.WEBHOOKS_LOST: self._service.webhooks_lost(),
            catalogue.WEBHOOKS_EXPECTED: self._expects,
        }
        return (State(metric, float(value)) for metric, value in values.items())


def _queues(vitals: Vitals) -> Iterator[State]:
    for tier in Tier:
        yield State(catalogue.WAITING, vitals.waiting.get(int(tier), 0), (str(int(tier)),))
        yield State(catalogue.OLDEST, vitals.oldest.get(int(tier), 0.0), (str(int(tier)),))
