"""What an operator watches: how long work waits, what is stuck on its way to Label Studio, what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from review_workflow.review import WorkStatus
from review_workflow.store import schema


@dataclass(frozen=True, slots=True)
class Vitals:
    """Counts and ages (seconds) at one moment, and the audit entries after `seq` by what happened."""

    waiting: Mapping[int, int]
    oldest: Mapping[int, float]
    outbox: int
    overdue: float
    inbox: int
    happened: Mapping[str, int]
    seq: int


def take(connection: Connection, now: float, after: int) -> Vitals:
    """Everything at this moment, with the audit entries after a number."""
    works, outbox, audit = schema.works, schema.outbox, schema.audit
    query = select(works.c.tier, func.count(), func.min(works.c.opened_at)).group_by(works.c.tier)
    rows = connection.execute(query.where(works.c.status == WorkStatus.WAITING.value)).all()
    stuck, due = connection.execute(select(func.count(), func.min(outbox.c.due_at))).one()
    newest = connection.execute(select(func.max(audit.c.seq))).scalar_one() or 0
    counts = select(audit.c.happened, func.count()).where(audit.c.seq > after, audit.c.seq <= newest)
    return Vitals(
        waiting={tier: count for tier, count, _ in rows},
        oldest={tier: max(now - opened, 0.0) for tier, _, opened in rows},
        outbox=stuck,
        overdue=max(now - due, 0.0) if due is not None else 0.0,
        inbox=connection.execute(select(func.count()).select_from(schema.inbox)).scalar_one(),
        happened=dict(tuple(row) for row in connection.execute(counts.group_by(audit.c.happened))),
        seq=newest,
    )
