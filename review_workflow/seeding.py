"""Gold tasks put among the queues: a piece of work that the policy draws brings one along to the same reader."""

from __future__ import annotations

import logging
from collections.abc import Callable

from converters.annotation import ImageRecord
from review_workflow.copies import ImageCopies
from review_workflow.decisions import Setting
from review_workflow.gold import brings_gold, candidates, compose, copied_record
from review_workflow.review import Review, WorkKey
from review_workflow.store import GoldTask, Session, Store

log = logging.getLogger(__name__)
_DAY = 86_400.0


class GoldSeeder:
    """Makes gold tasks out of approved images that have rested; call it under the lease of the sync."""

    def __init__(
        self, store: Store, setting: Callable[[Session], Setting], clock: Callable[[], float], copies: ImageCopies
    ) -> None:
        self._store = store
        self._setting = setting
        self._clock = clock
        self._copies = copies

    def seed(self) -> int:
        """Number of gold tasks made now; fewer than drawn where too few approved images have rested."""
        with self._store.reading() as session:
            if self._setting(session).policy.gold.share == 0:
                return 0
            drawn = self._drawn(session)
        return sum(self._bring(key) for key in drawn)

    def _drawn(self, session: Session) -> list[WorkKey]:
        policy, made = self._setting(session).policy, session.gold_tasks()
        served, copies = {task.brought_by for task in made}, {task.image_id for task in made}
        waiting = (key for key in session.waiting_keys() if key.image_id not in copies and key not in served)
        return [key for key in waiting if brings_gold(key, policy)]

    def _bring(self, key: WorkKey) -> bool:
        with self._store.reading() as session:
            work = session.review(key.image_id).work(key)
            found = self._source(session, key, work.assignee if work else None)
            if work is None or found is None:
                return False
            record, names = session.record(found.image_id), {r.original_name for r in session.records()}
        copy = self._copies.copy(record.uri, str(key))
        if copy is None:
            log.warning("no gold task from image %s: it is no JPEG or PNG in the images folder", found.image_id)
            return False
        self._make(key, work.assignee, found, copied_record(record, copy.image_id, copy.uri, names))
        return True

    def _source(self, session: Session, key: WorkKey, reader: str | None) -> Review | None:
        policy = self._setting(session).policy
        used = {t.source_id for t in session.gold_tasks() if (t.tier, t.reader) == (key.tier, reader)}
        rested = session.rested(self._clock() - policy.gold.rest_days * _DAY)
        fit = candidates((r for r in rested if r.image_id not in used), reader, key.tier, policy)
        return fit[0] if fit else None

    def _make(self, key: WorkKey, reader: str | None, source: Review, record: ImageRecord) -> None:
        decision = compose(record.image_id, source, key.tier, reader)
        task = GoldTask(record.image_id, source.image_id, key, key.tier, reader)
        with self._store.writing() as session:
            if session.add_image(record, self._clock()):
                session.put_gold(task, self._clock())
                policy = self._setting(session).policy.digest
                session.create(decision.review, decision.events, policy, self._clock())
