"""The audit log: entries that only grow, each chained to the one before by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime

import orjson
from sqlalchemy import Connection, Row, insert, select, update

from converters.label_studio.controls import Tier
from review_workflow.review import Event
from review_workflow.store import codec, schema

_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that happened; `previous` is the digest of the entry before, `digest` covers all other fields."""

    seq: int
    at: str
    actor: str
    role: str
    tier: int | None
    happened: str
    image_id: str
    key: str
    verdict: str
    reason: str
    source: str
    policy: str
    before: str
    after: str
    previous: str
    digest: str = ""

    def sealed(self) -> AuditEntry:
        """The entry with the digest that its content demands."""
        return replace(self, digest=_digest(astuple(self)[:-1]))


@dataclass(frozen=True, slots=True)
class AuditProblem:
    """One place where the log is not what was written."""

    seq: int
    what: str


_COLUMNS = [schema.audit.c[field.name] for field in fields(AuditEntry)]


def append(
    connection: Connection, image_id: str, events: Iterable[Event], policy: str, now: float
) -> tuple[AuditEntry, ...]:
    """The entries written for events, in the caller's transaction; concurrent writers queue on the head row."""
    head = connection.execute(select(schema.audit_head).with_for_update()).one()
    seq, previous, entries = head.seq, head.digest, []
    for event in events:
        entry = _entry(seq + 1, image_id, event, policy, previous, now).sealed()
        seq, previous = entry.seq, entry.digest
        entries.append(entry)
    if entries:
        connection.execute(insert(schema.audit), [_row(entry) for entry in entries])
        connection.execute(update(schema.audit_head).values(seq=seq, digest=previous))
    return tuple(entries)


def read(connection: Connection, image_id: str | None = None, actor: str | None = None) -> Iterator[AuditEntry]:
    """Entries in order, of one image or one person where asked, a page at a time."""
    query, last = select(*_COLUMNS).order_by(schema.audit.c.seq).limit(_PAGE), 0
    if image_id is not None:
        query = query.where(schema.audit.c.image_id == image_id)
    if actor is not None:
        query = query.where(schema.audit.c.actor == actor)
    while rows := connection.execute(query.where(schema.audit.c.seq > last)).all():
        yield from (AuditEntry(*row) for row in rows)
        last = rows[-1].seq


def recent(connection: Connection, limit: int, before: int | None = None) -> list[AuditEntry]:
    """The newest entries, or those before an entry, newest first."""
    query = select(*_COLUMNS).order_by(schema.audit.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(schema.audit.c.seq < before)
    return [AuditEntry(*row) for row in connection.execute(query)]


def verify(connection: Connection) -> tuple[AuditProblem, ...]:
    """Every place where an entry was altered, removed, inserted or moved; empty for a log as it was written."""
    problems: list[AuditProblem] = []
    seq, previous = 0, ""
    query, last = select(*_COLUMNS).order_by(schema.audit.c.seq).limit(_PAGE), -1
    while rows := connection.execute(query.where(schema.audit.c.seq > last)).all():
        for row in rows:
            problems += _check(row, seq, previous)
            seq, previous = row.seq, row.digest
        last = rows[-1].seq
    head = connection.execute(select(schema.audit_head)).one_or_none()
    if head is None or (head.seq, head.digest) != (seq, previous):
        problems.append(AuditProblem(seq + 1, "the end of the log is missing or was replaced"))
    return tuple(problems)


def _check(row: Row[tuple[object, ...]], seq: int, previous: str) -> list[AuditProblem]:
    problems = []
    if row.seq != seq + 1:
        problems.append(AuditProblem(seq + 1, f"entries {seq + 1} to {row.seq - 1} are missing"))
    if row.previous != previous:
        problems.append(AuditProblem(row.seq, "does not follow the entry before it"))
    if row.digest != _digest(tuple(row)[:-1]):
        problems.append(AuditProblem(row.seq, "was altered"))
    return problems


def _entry(seq: int, image_id: str, event: Event, policy: str, previous: str, now: float) -> AuditEntry:
    return AuditEntry(
        seq=seq,
        at=datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds"),
        actor=event.actor,
        role=event.role,
        tier=int(Tier(event.tier)) if event.tier else None,
        happened=str(event.happened),
        image_id=image_id,
        key=str(event.key) if event.key else "",
        verdict=str(event.verdict or ""),
        reason=event.reason,
        source=event.source,
        policy=policy,
        before=codec.encode_annotation(event.before),
        after=codec.encode_annotation(event.after),
        previous=previous,
    )


def _row(entry: AuditEntry) -> dict[str, object]:
    return {field.name: getattr(entry, field.name) for field in fields(entry)}


def _digest(values: tuple[object, ...]) -> str:
    return hashlib.sha256(orjson.dumps(values)).hexdigest()
