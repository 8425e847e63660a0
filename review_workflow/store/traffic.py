"""The part of a transaction that is about Label Studio: what was seen, hinted at, to be delivered, and who is at it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from converters.label_studio.controls import Tier
from review_workflow.review import WorkKey, WorkStatus
from review_workflow.store import schema

_CHUNK = 500
LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A piece of work whose Label Studio task has to be brought up to date; `attempts` counts earlier tries."""

    id: int
    key: WorkKey
    attempts: int


@dataclass(frozen=True, slots=True)
class TaskHint:
    """A webhook's hint that something happened to a task."""

    id: int
    project_id: int
    task_id: int


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """Where a piece of work lies in Label Studio and a digest of what was last written there."""

    task_id: int | None
    pushed: str | None


class Traffic:
    """Reads and writes on one open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def seen(self, annotation_ids: Iterable[int]) -> dict[int, str]:
        """The version of each annotation that was last dealt with."""
        wanted, found = sorted(set(annotation_ids)), {}
        for start in range(0, len(wanted), _CHUNK):
            query = select(schema.seen.c.annotation_id, schema.seen.c.source).where(
                schema.seen.c.annotation_id.in_(wanted[start : start + _CHUNK])
            )
            found.update({row.annotation_id: row.source for row in self._connection.execute(query)})
        return found

    def mark_seen(self, annotation_id: int, source: str, outcome: str) -> None:
        """Remembers that this version of an annotation was dealt with."""
        self._connection.execute(delete(schema.seen).where(schema.seen.c.annotation_id == annotation_id))
        self._connection.execute(
            insert(schema.seen).values(annotation_id=annotation_id, source=source, outcome=outcome)
        )

    def enqueue(self, keys: Iterable[WorkKey], now: float) -> None:
        """Asks for the Label Studio tasks of these pieces of work to be brought up to date."""
        rows = [{"key": str(key), "attempts": 0, "due_at": now, "error": ""} for key in keys]
        if rows:
            self._connection.execute(insert(schema.outbox), rows)

    def due(self, now: float, limit: int) -> tuple[OutboxItem, ...]:
        """Outbox rows whose time has come, oldest first; a time too far ahead is from before the clock went back."""
        time = schema.outbox.c.due_at
        query = select(schema.outbox).where(or_(time <= now, time > now + LONGEST_PAUSE))
        query = query.order_by(schema.outbox.c.id).limit(limit)
        return tuple(OutboxItem(r.id, WorkKey.parse(r.key), r.attempts) for r in self._connection.execute(query))

    def started(self, items: Iterable[OutboxItem]) -> None:
        """Marks rows as tried, so that a crash in the middle is known to the next try."""
        self._connection.execute(
            update(schema.outbox)
            .where(schema.outbox.c.id.in_([item.id for item in items]))
            .values(attempts=schema.outbox.c.attempts + 1)
        )

    def postpone(self, items: Iterable[OutboxItem], due_at: float, error: str) -> None:
        """Keeps rows for a later try and says why."""
        self._connection.execute(
            update(schema.outbox)
            .where(schema.outbox.c.id.in_([item.id for item in items]))
            .values(due_at=due_at, error=error)
        )

    def delivered(self, items: Iterable[OutboxItem]) -> None:
        """Removes rows that are done."""
        self._connection.execute(delete(schema.outbox).where(schema.outbox.c.id.in_([item.id for item in items])))

    def outbox_size(self) -> int:
        """Number of deliveries still to be made."""
        return self._connection.execute(select(func.count()).select_from(schema.outbox)).scalar_one()

    def places(self, keys: Iterable[WorkKey]) -> dict[WorkKey, TaskPlace]:
        """Where each piece of work lies in Label Studio."""
        wanted = [str(key) for key in keys]
        query = select(schema.works.c.key, schema.works.c.task_id, schema.works.c.pushed).where(
            schema.works.c.key.in_(wanted)
        )
        return {WorkKey.parse(r.key): TaskPlace(r.task_id, r.pushed) for r in self._connection.execute(query)}

    def put_place(self, key: WorkKey, place: TaskPlace) -> None:
        """Remembers where a piece of work lies."""
        self._connection.execute(
            update(schema.works)
            .where(schema.works.c.key == str(key))
            .values(task_id=place.task_id, pushed=place.pushed)
        )

    def keys_of(self, task_ids: Iterable[int]) -> tuple[WorkKey, ...]:
        """The pieces of work that lie in these Label Studio tasks."""
        query = select(schema.works.c.key).where(schema.works.c.task_id.in_(sorted(set(task_ids))))
        return tuple(sorted(WorkKey.parse(key) for key in self._connection.execute(query).scalars()))

    def forget_places(self, keys: Iterable[WorkKey]) -> None:
        """Forgets where pieces of work lay, because they lie there no longer."""
        wanted = [str(key) for key in keys]
        self._connection.execute(
            update(schema.works).where(schema.works.c.key.in_(wanted)).values(task_id=None, pushed=None)
        )

    def waiting_keys(self, assignee: str | None = None) -> tuple[WorkKey, ...]:
        """All work that waits for its answer, or what waits for one person."""
        query = select(schema.works.c.key).where(schema.works.c.status == WorkStatus.WAITING.value)
        if assignee is not None:
            query = query.where(schema.works.c.assignee == assignee)
        return tuple(sorted(WorkKey.parse(key) for key in self._connection.execute(query).scalars()))

    def waiting_among(self, keys: Iterable[WorkKey]) -> tuple[WorkKey, ...]:
        """Those of these pieces of work that wait for their answer."""
        wanted = [str(key) for key in keys]
        query = select(schema.works.c.key).where(schema.works.c.key.in_(wanted))
        found = self._connection.execute(query.where(schema.works.c.status == WorkStatus.WAITING.value)).scalars()
        return tuple(sorted(WorkKey.parse(key) for key in found))

    def waiting_after(self, key: str, limit: int) -> tuple[WorkKey, ...]:
        """The next so many pieces of waiting work beyond a key, in the database's own order."""
        table = schema.works
        query = select(table.c.key).where(table.c.key > key, table.c.status == WorkStatus.WAITING.value)
        rows = self._connection.execute(query.order_by(table.c.key).limit(limit)).scalars()
        return tuple(WorkKey.parse(key) for key in rows)

    def waiting_tasks(self, tier: Tier) -> list[tuple[int, WorkKey]]:
        """The Label Studio tasks of a tier in which work waits for its answer, with the work."""
        table = schema.works
        query = select(table.c.task_id, table.c.key).where(table.c.tier == int(tier), table.c.task_id.is_not(None))
        rows = self._connection.execute(query.where(table.c.status == WorkStatus.WAITING.value))
        return sorted((row.task_id, WorkKey.parse(row.key)) for row in rows)

    def remake_tasks(self, tier: Tier, now: float) -> None:
        """Forgets all tasks of a tier and asks for those still waited for to be made again."""
        table = schema.works
        self._connection.execute(update(table).where(table.c.tier == int(tier)).values(task_id=None, pushed=None))
        query = select(table.c.key).where(table.c.tier == int(tier), table.c.status == WorkStatus.WAITING.value)
        self.enqueue(sorted(WorkKey.parse(key) for key in self._connection.execute(query).scalars()), now)

    def hint(self, project_id: int, task_ids: Iterable[int], action: str, now: float) -> None:
        """Stores what a webhook hinted at."""
        rows = [
            {"project_id": project_id, "task_id": task_id, "action": action, "received_at": now} for task_id in task_ids
        ]
        if rows:
            self._connection.execute(insert(schema.inbox), rows)

    def hints(self, limit: int) -> tuple[TaskHint, ...]:
        """Stored hints, oldest first."""
        query = select(schema.inbox).order_by(schema.inbox.c.id).limit(limit)
        return tuple(TaskHint(r.id, r.project_id, r.task_id) for r in self._connection.execute(query))

    def clear_hints(self, hints: Iterable[TaskHint]) -> None:
        """Removes hints that were followed."""
        self._connection.execute(delete(schema.inbox).where(schema.inbox.c.id.in_([hint.id for hint in hints])))

    def inbox_size(self) -> int:
        """Number of hints still to be followed."""
        return self._connection.execute(select(func.count()).select_from(schema.inbox)).scalar_one()

    def fact(self, name: str) -> str | None:
        """A stored fact such as a project's id or a cursor, or None."""
        return self._connection.execute(
            select(schema.facts.c.value).where(schema.facts.c.name == name)
        ).scalar_one_or_none()

    def put_fact(self, name: str, value: str) -> None:
        """Stores a fact."""
        self.forget_fact(name)
        self._connection.execute(insert(schema.facts).values(name=name, value=value))

    def forget_fact(self, name: str) -> None:
        """Removes a fact that holds no longer."""
        self._connection.execute(delete(schema.facts).where(schema.facts.c.name == name))

    def lease_holder(self, name: str) -> str | None:
        """Who holds a lease, or None."""
        return self._connection.execute(
            select(schema.leases.c.owner).where(schema.leases.c.name == name)
        ).scalar_one_or_none()

    def take_lease(self, name: str, owner: str, now: float, seconds: float) -> bool:
        """Whether `owner` now holds the lease: it was free, expired, theirs, or from before the clock went back."""
        table = schema.leases
        free = or_(table.c.owner == owner, table.c.expires_at <= now, table.c.expires_at > now + seconds)
        taken = update(table).where(table.c.name == name, free).values(owner=owner, expires_at=now + seconds)
        if self._connection.execute(taken).rowcount == 1:
            return True
        try:
            with self._connection.begin_nested():
                self._connection.execute(insert(table).values(name=name, owner=owner, expires_at=now + seconds))
        except IntegrityError:
            return False
        return True

    def give_lease(self, name: str, owner: str) -> None:
        """Frees a lease that `owner` holds."""
        table = schema.leases
        self._connection.execute(delete(table).where(table.c.name == name, table.c.owner == owner))
