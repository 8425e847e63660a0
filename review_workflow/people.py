"""The people of the review, what each role may do, and who takes the next piece of work."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from converters.label_studio.controls import Tier


class Role(StrEnum):
    """What a person is in the review."""

    TECHNICIAN = "technician"
    DERMATOLOGIST = "dermatologist"
    QA = "qa"
    ML_ENGINEER = "ml-engineer"
    ADMIN = "admin"


TIER_ROLES: Mapping[Tier, Role] = {
    Tier.TECHNICIAN: Role.TECHNICIAN,
    Tier.DERMATOLOGIST: Role.DERMATOLOGIST,
    Tier.QA: Role.QA,
}
"""The one role that may answer in each tier."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody known by e-mail address; `user_id` is their id in Label Studio once they have one there.

    `expertise` lists sites and diagnosis codes; somebody on leave (`active` false) gets no new work.
    """

    email: str
    role: Role
    user_id: int | None = None
    active: bool = True
    expertise: tuple[str, ...] = ()

    def may_answer(self, tier: Tier) -> bool:
        """Whether answers of this person count in the tier; leave stops new work, not answers."""
        return TIER_ROLES[tier] is self.role

    def knows(self, topics: Iterable[str]) -> int:
        """How many of these topics are in this person's expertise, however they are spelt."""
        return len({topic.casefold() for topic in topics} & {known.casefold() for known in self.expertise})


@dataclass(frozen=True, slots=True)
class Roster:
    """Everybody, with the number of open pieces of work each has."""

    people: tuple[Person, ...] = ()
    load: tuple[tuple[str, int], ...] = ()

    def find(self, email: str) -> Person | None:
        """The person with an e-mail address, or None."""
        return next((person for person in self.people if person.email == email), None)

    def pick(self, tier: Tier, count: int, never: Collection[str] = (), topics: Iterable[str] = ()) -> tuple[str, ...]:
        """Up to `count` people for a tier: those who know most of the topics first, then the least loaded, by name.

        Nobody in `never` is picked: that is how nobody reviews their own work.
        """
        load, about = dict(self.load), tuple(topics)
        eligible = [p for p in self.people if p.active and p.may_answer(tier) and p.email not in never]
        ranked = sorted(eligible, key=lambda p: (-p.knows(about), load.get(p.email, 0), p.email))
        return tuple(person.email for person in ranked[:count])
