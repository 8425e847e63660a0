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

from converters.annotation import ImageRecord
from converters.label_studio.controls import Tier
from review_workflow.decisions import Setting
from review_workflow.errors import LabelStudioError
from review_workflow.label_studio import LabelStudioTasks
from review_workflow.ordering import priority
from review_workflow.presentation import PRELOADED, TaskDraft, draft
from review_workflow.queue_order import read_approved
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

    @property
    def is_as_it_should_be(self) -> bool:
        lies_there = self.place.task_id is not None and self.place.pushed == self.draft.digest
        return lies_there and self.item.attempts == 0 and not self.unwanted


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
            prepared = self._prepare(session, items)
        fresh, known = defaultdict(list), list[_Delivery]()
        for delivery in prepared:
            if delivery.is_new:
                fresh[delivery.work.key.tier].append(delivery)
            elif not delivery.is_as_it_should_be:
                known.append(delivery)
        made = sum(self._make(group, items) for group in fresh.values())
        others = {delivery.work.key for group in fresh.values() for delivery in group}
        return made + self._bring_up_to_date(known, [item for item in items if item.key not in others])

    def _prepare(self, session: Session, items: Sequence[OutboxItem]) -> list[_Delivery]:
        setting = self._setting(session)
        attempts: dict[WorkKey, OutboxItem] = {}
        for item in items:
            known = attempts.get(item.key)
            attempts[item.key] = item if known is None else replace(item, attempts=max(item.attempts, known.attempts))
        images = {key.image_id for key in attempts}
        reviews, records = session.reviews_of(images), session.records_of(images)
        models, places, approved = session.model_readings_of(images), session.places(attempts), read_approved(session)
        deliveries = []
        for key, item in attempts.items():
            review, record = reviews[key.image_id], records[key.image_id]
            if (work := review.work(key)) is not None:
                model, way = models.get(key.image_id), setting.policy.queue.order
                soon = priority(review, key, model, approved, setting.taxonomy, way)
                wanted = draft(review, work, record, setting, soon)
                deliveries.append(_Delivery(item, review, work, record, places.get(key, TaskPlace(None, None)), wanted))
        return deliveries

    def _make(self, group: Sequence[_Delivery], items: Sequence[OutboxItem]) -> int:
        """Number of tasks that were made, all of one tier or none."""
        ours = _of(group, items)
        try:
            self._create(group)
        except LabelStudioError as error:
            self._postpone(ours, error)
            return 0
        with self._store.writing() as session:
            session.delivered(ours)
        return len(group)

    def _bring_up_to_date(self, known: Sequence[_Delivery], items: Sequence[OutboxItem]) -> int:
        """Number of tasks that were rewritten or removed; rows of `items` without a delivery have nothing to change."""
        places: dict[WorkKey, TaskPlace | None] = {}
        failed: set[WorkKey] = set()
        for delivery in known:
            try:
                places[delivery.work.key] = self._update(delivery)
            except LabelStudioError as error:
                failed.add(delivery.work.key)
                self._postpone(_of([delivery], items), error)
        with self._store.writing() as session:
            for key, place in places.items():
                if place is not None:
                    session.put_place(key, place)
            session.delivered([item for item in items if item.key not in failed])
        return len(places)

    def _postpone(self, items: Sequence[OutboxItem], error: LabelStudioError) -> None:
        pause = min(2.0 ** min(max(item.attempts for item in items), 10), LONGEST_PAUSE)
        log.warning("%d deliveries failed, again in %.0f s: %s", len(items), pause, error)
        with self._store.writing() as session:
            session.postpone(items, self._clock() + pause, str(error))

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

    def _update(self, delivery: _Delivery) -> TaskPlace | None:
        """Where the work lies now, None where that is as it was known or is stored already."""
        key, place = delivery.work.key, delivery.place
        task_id = place.task_id
        if task_id is None and delivery.item.attempts:
            task_id = self._gateway.find_task(self._project(key.tier), str(key))
        if delivery.unwanted:
            return self._remove(delivery, task_id)
        if task_id is None:
            self._create([delivery])
            return None
        if place.pushed == delivery.draft.digest or self._gateway.update_task(task_id, delivery.draft):
            if place.pushed != delivery.draft.digest or delivery.item.attempts:
                self._put_on_desk(delivery, task_id)
            return TaskPlace(task_id, delivery.draft.digest)
        if delivery.work.status is WorkStatus.WAITING:
            self._create([delivery])
            return None
        return TaskPlace(None, None)

    def _remove(self, delivery: _Delivery, task_id: int | None) -> TaskPlace | None:
        if task_id is None:
            return None
        task = self._gateway.task(task_id)
        answered = task is not None and any(not a.cancelled for a in task.annotations)
        if answered and delivery.review.state is not ReviewState.WITHDRAWN:
            self._gateway.update_task(task_id, delivery.draft)
            return None
        self._gateway.delete_task(task_id)
        return TaskPlace(None, None)


def _of(deliveries: Sequence[_Delivery], items: Sequence[OutboxItem]) -> list[OutboxItem]:
    """The rows that ask for these deliveries."""
    keys = {delivery.work.key for delivery in deliveries}
    return [item for item in items if item.key in keys]
