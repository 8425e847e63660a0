"""Where the whole review stands, in one value."""

from __future__ import annotations

from dataclasses import dataclass

from review_workflow.people import Person
from review_workflow.store import Session


@dataclass(frozen=True, slots=True)
class Status:
    """Images by state, waiting work by tier and person, everybody, what is on its way, the policy's digest."""

    states: tuple[tuple[str, int], ...]
    waiting: tuple[tuple[int, str, int], ...]
    people: tuple[Person, ...]
    outbox: int
    inbox: int
    policy: str


def take(session: Session, policy: str) -> Status:
    """Everything at this moment, under a policy."""
    waiting = sorted((int(tier), email or "", count) for (tier, email), count in session.waiting().items())
    states = tuple((state.value, count) for state, count in sorted(session.states().items()))
    return Status(states, tuple(waiting), session.people(), session.outbox_size(), session.inbox_size(), policy)
