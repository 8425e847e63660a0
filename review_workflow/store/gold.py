"""Which images are gold tasks: the only place where that is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from converters.label_studio.controls import Tier
from review_workflow.review import Review, WorkKey
from review_workflow.states import ReviewState
from review_workflow.store import codec, schema

_CANDIDATES, _CHUNK = 500, 500


@dataclass(frozen=True, slots=True)
class GoldTask:
    """A gold task: the copied image, its source, the work that brought it along, and for whom it is."""

    image_id: str
    source_id: str
    brought_by: WorkKey
    tier: Tier
    reader: str | None


def put(connection: Connection, task: GoldTask, now: float) -> None:
    """Stores a gold task; one piece of work brings at most one along."""
    row = {
        "image_id": task.image_id,
        "source_id": task.source_id,
        "brought_by": str(task.brought_by),
        "tier": int(task.tier),
        "reader": task.reader,
        "made_at": now,
    }
    connection.execute(insert(schema.gold).values(row))


def without(connection: Connection, keys: Sequence[WorkKey]) -> tuple[WorkKey, ...]:
    """Those of these pieces of work that have brought no gold task along and are none, in their order."""
    table, left = schema.gold, []
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        brought = connection.execute(select(table.c.brought_by).where(table.c.brought_by.in_(list(map(str, chunk)))))
        copies = connection.execute(select(table.c.image_id).where(table.c.image_id.in_([k.image_id for k in chunk])))
        served, own = set(brought.scalars()), set(copies.scalars())
        left += [key for key in chunk if str(key) not in served and key.image_id not in own]
    return tuple(left)


def sources(connection: Connection, tier: Tier, reader: str | None) -> set[str]:
    """The images whose copies one reader (None: the tier's readers together) had as gold tasks of a tier."""
    table = schema.gold
    query = select(table.c.source_id).where(table.c.tier == int(tier))
    found = query.where(table.c.reader.is_(None) if reader is None else table.c.reader == reader)
    return set(connection.execute(found).scalars())


def reviews(connection: Connection) -> tuple[Review, ...]:
    """The reviews of all gold tasks, by image id."""
    query = select(schema.reviews).join(schema.gold, schema.gold.c.image_id == schema.reviews.c.image_id)
    return _decoded(connection, query.order_by(schema.reviews.c.image_id))


def rested(connection: Connection, before: float) -> tuple[Review, ...]:
    """Approved reviews that nothing has changed since a moment, the longest rested first, so many at the most."""
    table = schema.reviews
    query = select(table).where(table.c.state == ReviewState.APPROVED.value, table.c.changed_at <= before)
    return _decoded(connection, query.order_by(table.c.changed_at, table.c.image_id).limit(_CANDIDATES))


def _decoded(connection: Connection, query: Select[Any]) -> tuple[Review, ...]:
    rows = connection.execute(query)
    return tuple(codec.decode_review(r.image_id, r.state, r.revision, r.version, r.body) for r in rows)
