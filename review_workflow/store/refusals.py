"""The record of what was turned away: one row for each kind, place, caller and minute, whose count only grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from review_workflow.store import schema


@dataclass(frozen=True, slots=True)
class Refusal:
    """So many requests of one caller in one minute (UTC) that were turned away; `last` is when the last one came."""

    minute: str
    what: str
    place: str
    source: str
    count: int
    last: str


_KEY = ("minute", "what", "place", "source")
_COLUMNS = [schema.refusals.c[field.name] for field in fields(Refusal)]


def add(connection: Connection, refusal: Refusal) -> None:
    """Adds to the count of the minute, or begins it; writers at the same instant both count."""
    table = schema.refusals
    same = [table.c[name] == getattr(refusal, name) for name in _KEY]
    more = update(table).where(*same).values(count=table.c.count + refusal.count, last=refusal.last)
    if connection.execute(more).rowcount == 1:
        return
    row = {field.name: getattr(refusal, field.name) for field in fields(refusal)}
    try:
        with connection.begin_nested():
            connection.execute(insert(table).values(row))
    except IntegrityError:
        connection.execute(more)


def newest(connection: Connection, limit: int) -> tuple[Refusal, ...]:
    """The newest minutes first."""
    query = select(*_COLUMNS).order_by(*(schema.refusals.c[name].desc() for name in _KEY)).limit(limit)
    return tuple(Refusal(*row) for row in connection.execute(query))


def read(connection: Connection) -> Iterator[Refusal]:
    """All of them, oldest first."""
    query = select(*_COLUMNS).order_by(*(schema.refusals.c[name] for name in _KEY))
    for row in connection.execute(query):
        yield Refusal(*row)
