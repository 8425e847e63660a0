"""What the dashboard asks of the database: queues and their ages, what was done when, how each reader works."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select

from converters.label_studio.controls import Tier, Verdict
from review_workflow.review import Review, WorkStatus
from review_workflow.states import ReviewState
from review_workflow.store import codec, schema


@dataclass(frozen=True, slots=True)
class Queue:
    """Work that waits in one tier for one person (empty: for anybody), and the oldest piece's age in hours."""

    tier: Tier
    assignee: str
    waiting: int
    oldest_hours: float


@dataclass(frozen=True, slots=True)
class Day:
    """Answers that counted on one day (UTC), by tier."""

    day: str
    answers: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ReaderWork:
    """How one reader works in one tier: shares are of their answers, seconds are the median; None = nothing known."""

    author: str
    tier: Tier
    answers: int
    changed_share: float | None
    sent_back_share: float
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Insight:
    """All of it at one moment."""

    queues: tuple[Queue, ...]
    days: tuple[Day, ...]
    readers: tuple[ReaderWork, ...]
    today: date


def gather(connection: Connection, now: float, last_days: int) -> Insight:
    """Everything the front page shows, with answers of so many days."""
    since = now - 86_400 * last_days
    today = datetime.fromtimestamp(now, UTC).date()
    return Insight(queues(connection, now), days(connection, since), readers(connection), today)


def queues(connection: Connection, now: float) -> tuple[Queue, ...]:
    """All queues with waiting work, by tier and person."""
    table = schema.works
    query = (
        select(table.c.tier, table.c.assignee, func.count(), func.min(table.c.opened_at))
        .where(table.c.status == WorkStatus.WAITING.value)
        .group_by(table.c.tier, table.c.assignee)
    )
    found = [
        Queue(Tier(t), who or "", count, (now - oldest) / 3600) for t, who, count, oldest in connection.execute(query)
    ]
    return tuple(sorted(found, key=lambda queue: (queue.tier, queue.assignee)))


def days(connection: Connection, since: float) -> tuple[Day, ...]:
    """Days with at least one answer since a moment, oldest first."""
    table = schema.works
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for tier, at in connection.execute(select(table.c.tier, table.c.answered_at).where(table.c.answered_at >= since)):
        counts[datetime.fromtimestamp(at, UTC).date().isoformat()][tier] += 1
    return tuple(Day(day, (found[1], found[2], found[3])) for day, found in sorted(counts.items()))


def readers(connection: Connection) -> tuple[ReaderWork, ...]:
    """How each reader works, by tier and name."""
    groups: dict[tuple[int, str], list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(_answered()):
        groups[row.tier, row.author].append(row)
    return tuple(_reader(author, Tier(tier), rows) for (tier, author), rows in sorted(groups.items()))


def answered(connection: Connection, tier: Tier) -> int:
    """Number of pieces of work in a tier that have their answer."""
    table = schema.works
    query = select(func.count()).where(table.c.tier == int(tier), table.c.status == WorkStatus.ANSWERED.value)
    return connection.execute(query).scalar_one()


def newest_reviews(
    connection: Connection, states: Sequence[ReviewState], limit: int, offset: int = 0
) -> tuple[Review, ...]:
    """Reviews in some states, the latest change first."""
    query = select(schema.reviews).where(schema.reviews.c.state.in_([state.value for state in states]))
    query = query.order_by(schema.reviews.c.changed_at.desc(), schema.reviews.c.image_id).limit(limit).offset(offset)
    rows = connection.execute(query)
    return tuple(codec.decode_review(r.image_id, r.state, r.revision, r.version, r.body) for r in rows)


def _answered() -> Select[Any]:
    table = schema.works
    columns = (table.c.tier, table.c.author, table.c.verdict, table.c.changed, table.c.lead_time)
    return select(*columns).where(table.c.status == WorkStatus.ANSWERED.value, table.c.author.is_not(None))


def _reader(author: str, tier: Tier, rows: Sequence[Row[Any]]) -> ReaderWork:
    known = [bool(row.changed) for row in rows if row.changed is not None and row.verdict != Verdict.SEND_BACK]
    sent_back = sum(row.verdict == Verdict.SEND_BACK for row in rows)
    changed = sum(known) / len(known) if known else None
    return ReaderWork(author, tier, len(rows), changed, sent_back / len(rows), _median(rows))


def _median(rows: Sequence[Row[Any]]) -> float | None:
    times = [float(row.lead_time) for row in rows if row.lead_time is not None]
    return statistics.median(times) if times else None
