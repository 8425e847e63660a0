"""Gold tasks put among the queues: a piece of work that the policy draws brings one along to the same reader."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from converters.annotation import ImageRecord
from review_workflow.copies import ImageCopies
from review_workflow.decisions import Setting
from review_workflow.gold import brings_gold, candidates, compose, copied_record
from review_workflow.review import Review, WorkKey
from review_workflow.store import GoldTask, Session, Store

log = logging.getLogger(__name__)
_DAY = 86_400.0
_LOOK, _LOOKED = 5_000, "gold: looked through up to"


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
        """Number of gold tasks made now; fewer than drawn where too few approved images have rested.

        A call looks through some thousand pieces of waiting work, the next one through those that follow.
        """
        with self._store.reading() as session:
            policy = self._setting(session).policy
            if policy.gold.share == 0:
                return 0
            rested = session.rested(self._clock() - policy.gold.rest_days * _DAY)
            looked = session.waiting_after(session.fact(_LOOKED) or "", _LOOK) if rested else ()
            drawn = session.without_gold([key for key in looked if brings_gold(key, policy)])
        made = sum(self._bring(key, rested) for key in drawn)
        if rested:
            with self._store.writing() as session:
                session.put_fact(_LOOKED, str(looked[-1]) if len(looked) == _LOOK else "")
        return made

    def _bring(self, key: WorkKey, rested: Sequence[Review]) -> bool:
        with self._store.reading() as session:
            work = session.review(key.image_id).work(key)
            found = self._source(session, key, work.assignee if work else None, rested)
            if work is None or found is None:
                return False
            record = session.record(found.image_id)
        copy = self._copies.copy(record.uri, str(key))
        if copy is None:
            log.warning("no gold task from image %s: it is no JPEG or PNG in the images folder", found.image_id)
            return False
        with self._store.reading() as session:
            named = copied_record(record, copy.image_id, copy.uri, session.is_name_taken)
        self._make(key, work.assignee, found, named)
        return True

    def _source(self, session: Session, key: WorkKey, reader: str | None, rested: Sequence[Review]) -> Review | None:
        used = session.gold_sources(key.tier, reader)
        policy = self._setting(session).policy
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
