"""What must be written to Label Studio after a commit: each piece of work's task made, rewritten or removed.

A row says only which piece of work to look at; what its task should be is worked out at delivery from the review as it
is then, so rows can be lost to a crash half-way, doubled or delivered late without harm. A task is looked up by its key
before it is made again.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import orjson

from converters.annotation import ImageRecord
from converters.label_studio.controls import Tier
from review_workflow.decisions import Setting
from review_workflow.errors import LabelStudioError
from review_workflow.label_studio import LabelStudioTasks
from review_workflow.ordering import priority
from review_workflow.presentation import PRELOADED, TaskDraft, draft
from review_workflow.review import Review, Work, WorkKey, WorkStatus
from review_workflow.states import ReviewState
from review_workflow.store import OutboxItem, Session, Store
from review_workflow.store.traffic import LONGEST_PAUSE, TaskPlace

log = logging.getLogger(__name__)
_BATCH = 100


@dataclass(frozen=True, slots=True)
class _Delivery:
    item: OutboxItem
    review: Review
    work: Work
    record: ImageRecord
    place: TaskPlace
    draft: TaskDraft

    @property
    def unwanted(self) -> bool:
        return self.work.status is WorkStatus.CANCELLED or self.review.state is ReviewState.WITHDRAWN

    @property
    def is_new(self) -> bool:
        return self.place.task_id is None and self.item.attempts == 0 and not self.unwanted


APPROVED_FACT = "approved by diagnosis"


def read_approved(session: Session) -> dict[str, int]:
    """The number of approved images by diagnosis, as counted when the queues were last ordered."""
    found = session.fact(APPROVED_FACT)
    return {str(code): int(count) for code, count in orjson.loads(found).items()} if found else {}


class Outbox:
    """The deliveries of one review database to one Label Studio."""

    def __init__(
        self,
        store: Store,
        gateway: LabelStudioTasks,
        setting: Callable[[Session], Setting],
        clock: Callable[[], float],
        project: Callable[[Tier], int],
        keep_lease: Callable[[], None],
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._setting = setting
        self._clock = clock
        self._project = project
        self._keep_lease = keep_lease
        self._preloaded: set[int] = set()

    def drain(self) -> int:
        """Number of tasks written; stops where nothing is due. What fails stays, for a later try."""
        written = 0
        while True:
            self._keep_lease()
            with self._store.writing() as session:
                items = session.due(self._clock(), _BATCH)
                session.started(items)
            if not items:
                return written
            written += self._deliver(items)

    def _deliver(self, items: Sequence[OutboxItem]) -> int:
        with self._store.reading() as session:
            deliveries = self._prepare(session, items)
        fresh = defaultdict(list)
        for delivery in deliveries:
            if delivery.is_new:
                fresh[delivery.work.key.tier].append(delivery)
        groups = [*fresh.values(), *([d] for d in deliveries if not d.is_new)]
        written = sum(self._attempt(group, items) for group in groups)
        settled = {d.item.key for d in deliveries}
        with self._store.writing() as session:
            session.delivered([item for item in items if item.key not in settled])
        return written

    def _prepare(self, session: Session, items: Sequence[OutboxItem]) -> list[_Delivery]:
        setting = self._setting(session)
        attempts: dict[WorkKey, OutboxItem] = {}
        for item in items:
            known = attempts.get(item.key)
            attempts[item.key] = item if known is None else replace(item, attempts=max(item.attempts, known.attempts))
        places, approved = session.places(attempts), read_approved(session)
        deliveries = []
        for key, item in attempts.items():
            review = session.review(key.image_id)
            work = review.work(key)
            if work is not None:
                record = session.record(key.image_id)
                model = session.model_reading(key.image_id)
                soon = priority(review, key, model, approved, setting.taxonomy, setting.policy.queue.order)
                wanted = draft(review, work, record, setting, soon)
                deliveries.append(_Delivery(item, review, work, record, places.get(key, TaskPlace(None, None)), wanted))
        return deliveries

    def _attempt(self, group: Sequence[_Delivery], items: Sequence[OutboxItem]) -> int:
        keys = {delivery.work.key for delivery in group}
        ours = [item for item in items if item.key in keys]
        try:
            if group[0].is_new:
                self._create(group)
            else:
                self._update(group[0])
        except LabelStudioError as error:
            pause = min(2.0 ** min(max(item.attempts for item in ours), 10), LONGEST_PAUSE)
            log.warning("delivery of %d tasks failed, again in %.0f s: %s", len(group), pause, error)
            with self._store.writing() as session:
                session.postpone(ours, self._clock() + pause, str(error))
            return 0
        with self._store.writing() as session:
            session.delivered(ours)
        return len(group)

    def _create(self, group: Sequence[_Delivery]) -> None:
        tier = group[0].work.key.tier
        made = self._gateway.create_tasks(self._project(tier), [(d.draft, d.record.size) for d in group])
        with self._store.writing() as session:
            for delivery, task_id in zip(group, made, strict=True):
                session.put_place(delivery.work.key, TaskPlace(task_id, delivery.draft.digest))
        self._preload(tier)
        for delivery, task_id in zip(group, made, strict=True):
            self._put_on_desk(delivery, task_id)

    def _put_on_desk(self, delivery: _Delivery, task_id: int) -> None:
        if delivery.draft.resumed is not None:
            project_id = self._project(delivery.work.key.tier)
            self._gateway.put_on_desk(project_id, task_id, delivery.draft.resumed, delivery.record.size)

    def _preload(self, tier: Tier) -> None:
        project_id = self._project(tier)
        if tier in PRELOADED and project_id not in self._preloaded:
            self._gateway.preload(project_id, PRELOADED[tier])
            self._preloaded.add(project_id)

    def _update(self, delivery: _Delivery) -> None:
        key, place = delivery.work.key, delivery.place
        task_id = place.task_id
        if task_id is None and delivery.item.attempts:
            task_id = self._gateway.find_task(self._project(key.tier), str(key))
        if delivery.unwanted:
            self._remove(delivery, task_id)
        elif task_id is None:
            self._create([delivery])
        elif place.pushed == delivery.draft.digest or self._gateway.update_task(task_id, delivery.draft):
            if place.pushed != delivery.draft.digest or delivery.item.attempts:
                self._put_on_desk(delivery, task_id)
            self._remember(key, TaskPlace(task_id, delivery.draft.digest))
        elif delivery.work.status is WorkStatus.WAITING:
            self._create([delivery])
        else:
            self._remember(key, TaskPlace(None, None))

    def _remove(self, delivery: _Delivery, task_id: int | None) -> None:
        if task_id is None:
            return
        task = self._gateway.task(task_id)
        answered = task is not None and any(not a.cancelled for a in task.annotations)
        if answered and delivery.review.state is not ReviewState.WITHDRAWN:
            self._gateway.update_task(task_id, delivery.draft)
            return
        self._gateway.delete_task(task_id)
        self._remember(delivery.work.key, TaskPlace(None, None))

    def _remember(self, key: WorkKey, place: TaskPlace) -> None:
        with self._store.writing() as session:
            session.put_place(key, place)
