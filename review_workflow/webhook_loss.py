"""Which answers no webhook told of: reconciliation found them, and within a while no hint came for their task."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import orjson

from review_workflow.store import Session

_FACT = "webhooks untold"
PATIENCE = 30.0
"""Label Studio sends a webhook at once or never; so many seconds leave room for a slow proxy."""


@dataclass(frozen=True, slots=True)
class Untold:
    """Tasks with an answer that reconciliation found, by moment, and how many were given up as lost so far."""

    waiting: Mapping[int, float] = field(default_factory=dict)
    lost: int = 0

    def found(self, tasks: Collection[int], now: float) -> Untold:
        """After reconciliation found answers on these tasks."""
        return replace(self, waiting={**dict.fromkeys(tasks, now), **self.waiting})

    def told(self, tasks: Collection[int]) -> Untold:
        """After webhooks told of these tasks."""
        return replace(self, waiting={task: at for task, at in self.waiting.items() if task not in tasks})

    def settled(self, now: float) -> Untold:
        """With those given up that nobody told of in time."""
        waiting = {task: at for task, at in self.waiting.items() if abs(now - at) < PATIENCE}
        return Untold(waiting, self.lost + len(self.waiting) - len(waiting))


def read(session: Session) -> Untold:
    """What is stored."""
    stored = session.fact(_FACT)
    if stored is None:
        return Untold()
    row = orjson.loads(stored)
    return Untold({int(task): float(at) for task, at in row["waiting"].items()}, int(row["lost"]))


def note(session: Session, now: float, found: Collection[int] = (), told: Collection[int] = ()) -> None:
    """Stores what a pass found by itself and what webhooks told of."""
    before = read(session)
    after = before.told(told).found(found, now).settled(now)
    if after != before:
        row = {"waiting": {str(task): at for task, at in after.waiting.items()}, "lost": after.lost}
        session.put_fact(_FACT, orjson.dumps(row).decode())
