"""Which images are gold tasks: the only place where that is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from converters.label_studio.controls import Tier
from review_workflow.review import Review, WorkKey
from review_workflow.states import ReviewState
from review_workflow.store import codec, schema

_CANDIDATES = 500


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


def tasks(connection: Connection) -> tuple[GoldTask, ...]:
    """All gold tasks, oldest first."""
    query = select(schema.gold).order_by(schema.gold.c.made_at, schema.gold.c.image_id)
    return tuple(
        GoldTask(r.image_id, r.source_id, WorkKey.parse(r.brought_by), Tier(r.tier), r.reader)
        for r in connection.execute(query)
    )


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
