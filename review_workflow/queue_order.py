"""The order of the queues kept up to date: what changed at once, everything in chunks where all of it may have moved.

A task's priority hangs on what the model says of its image and on how many images of each diagnosis were approved
(`ordering.py`). A new reading of the model moves its own task only. Another model, another order by policy, or half as
many approvals again move them all: the approvals are then counted anew, and the waiting work is gone through from
beginning to end. Where that stands is kept in the database, so it goes on where a pass or a process ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

import orjson

from converters.errors import ConversionError
from converters.taxonomy import Taxonomy
from review_workflow import submissions
from review_workflow.errors import ReviewError
from review_workflow.label_studio import LabelStudioTasks, ModelSuggestion
from review_workflow.policy import Order, Policy
from review_workflow.review import WorkKey
from review_workflow.states import ReviewState
from review_workflow.store import Session, Store

log = logging.getLogger(__name__)
_CHUNK = 200
_OVERLAP = timedelta(seconds=10)
_GROWN, _AT_LEAST = 1.5, 20
_READING, _BASIS, _REFRESH, _APPROVED = "order: reading", "order: basis", "order: refresh", "approved by diagnosis"


@dataclass(frozen=True, slots=True)
class Step:
    """What one chunk did: new readings of the model that it found, and whether there is more to go through."""

    changed: int
    more: bool


@dataclass(frozen=True, slots=True)
class _Basis:
    """What the whole order rests on: the policy's way, the models seen so far, the approvals when last counted."""

    order: str
    models: tuple[str, ...]
    approved: int


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Changes up to `since` were read, of later ones those on tasks up to `after`, the newest of them at `newest`."""

    since: datetime | None = None
    after: int = 0
    newest: datetime | None = None

    def past(self, found: Sequence[ModelSuggestion]) -> _Cursor:
        """Beyond a chunk; beyond a whole reading where that was the last one."""
        newest = max((x for x in (self.newest, *(s.updated_at for s in found)) if x), default=None)
        if len(found) < _CHUNK:
            return _Cursor(newest or self.since)
        return replace(self, after=found[-1].task_id, newest=newest)


class QueueOrder:
    """The order of one review's queues; call it under the lease of the sync."""

    def __init__(self, store: Store, gateway: LabelStudioTasks, policy: Policy, taxonomy: Taxonomy) -> None:
        self._store = store
        self._gateway = gateway
        self._policy = policy
        self._taxonomy = taxonomy

    def step(self, project_id: int, now: Callable[[], float]) -> Step:
        """Asks for the next chunk of tasks to be brought up to date: those with new readings, then the rest if due."""
        changed, is_read = self._read(project_id, now())
        more = self._refresh(now()) if is_read else True
        return Step(changed, more)

    def _read(self, project_id: int, now: float) -> tuple[int, bool]:
        """How many new readings a chunk had, and whether it was the last one."""
        with self._store.reading() as session:
            cursor = _load_cursor(session, project_id)
        since = cursor.since - _OVERLAP if cursor.since else None
        found = list(islice(self._gateway.suggestions(project_id, since, cursor.after), _CHUNK))
        following = cursor.past(found)
        with self._store.writing() as session:
            changed = {key: x.model_version for x in found if (key := self._note(session, x))}
            if self._policy.queue.order is Order.HARM:
                session.enqueue(session.waiting_among(changed), now)
            self._begin_refresh(session, set(changed.values()))
            if following != cursor:
                _save_cursor(session, project_id, following)
        return len(changed), following.after == 0

    def _note(self, session: Session, suggestion: ModelSuggestion) -> WorkKey | None:
        """The work whose image the model says something new of, None for what it said before and for later rounds."""
        try:
            key = WorkKey.parse(suggestion.key)
            if key.round > 1:
                return None
            reading = submissions.model_reading(suggestion, session.record(key.image_id), self._taxonomy)
            return key if session.put_model_reading(reading) else None
        except (ReviewError, ConversionError) as error:
            log.warning("prediction on task %d left out of the order: %s", suggestion.task_id, error)
            return None

    def _begin_refresh(self, session: Session, models: set[str]) -> None:
        order, approved = self._policy.queue.order, session.states().get(ReviewState.APPROVED, 0)
        known = _load_basis(session)
        seen = known or _Basis(order.value, (), approved)
        has_new = order is Order.HARM and not models <= set(seen.models)
        has_grown = order is Order.HARM and approved >= _GROWN * seen.approved + _AT_LEAST
        if has_new or has_grown or order.value != seen.order:
            session.put_fact(_APPROVED, _text(session.approved_diagnoses()))
            session.put_fact(_REFRESH, "")
            seen = _Basis(order.value, tuple(sorted({*seen.models, *models})), approved)
        if seen != known:
            session.put_fact(_BASIS, _text([seen.order, seen.models, seen.approved]))

    def _refresh(self, now: float) -> bool:
        """Whether the refresh has further to go after the next chunk of waiting work."""
        with self._store.reading() as session:
            after = session.fact(_REFRESH)
        if after is None:
            return False
        with self._store.writing() as session:
            keys = session.waiting_after(after, _CHUNK)
            session.enqueue(keys, now)
            if len(keys) == _CHUNK:
                session.put_fact(_REFRESH, str(keys[-1]))
            else:
                session.forget_fact(_REFRESH)
        return len(keys) == _CHUNK


def read_approved(session: Session) -> dict[str, int]:
    """The number of approved images by diagnosis, as counted when the whole order was last refreshed."""
    found = session.fact(_APPROVED)
    return {str(code): int(count) for code, count in orjson.loads(found).items()} if found else {}


def _load_basis(session: Session) -> _Basis | None:
    found = session.fact(_BASIS)
    if found is None:
        return None
    order, models, approved = orjson.loads(found)
    return _Basis(order, tuple(models), approved)


def _load_cursor(session: Session, project_id: int) -> _Cursor:
    found = session.fact(f"{_READING} {project_id}")
    if found is None:
        return _Cursor()
    since, after, newest = orjson.loads(found)
    return _Cursor(_moment(since), after, _moment(newest))


def _save_cursor(session: Session, project_id: int, cursor: _Cursor) -> None:
    row = [cursor.since and cursor.since.isoformat(), cursor.after, cursor.newest and cursor.newest.isoformat()]
    session.put_fact(f"{_READING} {project_id}", _text(row))


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _text(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
