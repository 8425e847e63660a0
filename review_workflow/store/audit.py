"""The audit log: entries that only grow, each chained to the one before by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime

import orjson
from sqlalchemy import Connection, Row, insert, select, update

from converters.label_studio.controls import Tier
from review_workflow.errors import AuditError
from review_workflow.review import Event
from review_workflow.store import codec, schema
from review_workflow.store.replay import Replay

_PAGE = 5_000
_DIGEST = 64


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


@dataclass(frozen=True, slots=True)
class AuditAnchor:
    """A place in the log to be noted outside the database: an entry's number and digest."""

    seq: int
    digest: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> AuditAnchor:
        """The anchor of its text form; raises AuditError where it is none."""
        seq, _, digest = text.partition(":")
        if not seq.isdigit() or len(digest) != _DIGEST:
            raise AuditError("anchor", text, "number:digest, as `verify-audit` prints it", "Copy it whole.")
        return cls(int(seq), digest)


_COLUMNS = [schema.audit.c[field.name] for field in fields(AuditEntry)]


def append(
    connection: Connection, image_id: str, events: Iterable[Event], policy: str, now: float
) -> tuple[AuditEntry, ...]:
    """The entries written for events, in the caller's transaction; concurrent writers queue on the head row."""
    end = connection.execute(select(schema.audit_head).with_for_update()).one()
    seq, previous, entries = end.seq, end.digest, []
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


def head(connection: Connection) -> AuditAnchor:
    """Where the log ends now."""
    found = connection.execute(select(schema.audit_head)).one_or_none()
    return AuditAnchor(found.seq, found.digest) if found else AuditAnchor(0, "")


def verify(connection: Connection, anchors: Collection[AuditAnchor] = ()) -> tuple[AuditProblem, ...]:
    """Every place where an entry was altered, removed, inserted or moved; empty for a log as it was written.

    The log must reach its own head and every anchor that somebody noted elsewhere, and what it tells of each image must
    lead to the state in which the image is: so a shortened log is found even where its head was shortened with it.
    """
    problems: list[AuditProblem] = []
    noted = {anchor.seq: anchor.digest for anchor in anchors}
    told = Replay()
    seq, previous = 0, ""
    query, last = select(*_COLUMNS).order_by(schema.audit.c.seq).limit(_PAGE), -1
    while rows := connection.execute(query.where(schema.audit.c.seq > last)).all():
        for row in rows:
            problems += _check(row, seq, previous)
            if noted.pop(row.seq, row.digest) != row.digest:
                problems.append(AuditProblem(row.seq, "is not what was noted elsewhere"))
            if what := told.step(row.seq, row.image_id, row.happened):
                problems.append(AuditProblem(row.seq, what))
            seq, previous = row.seq, row.digest
        last = rows[-1].seq
    if head(connection) != AuditAnchor(seq, previous):
        problems.append(AuditProblem(seq + 1, "the end of the log is missing or was replaced"))
    problems += (AuditProblem(gone, "was noted elsewhere and is missing") for gone in sorted(noted))
    problems += (AuditProblem(at, what) for at, what in told.compare(_states(connection)))
    return tuple(problems)


def _states(connection: Connection) -> dict[str, str]:
    rows = connection.execute(select(schema.reviews.c.image_id, schema.reviews.c.state))
    return {row.image_id: row.state for row in rows}


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
