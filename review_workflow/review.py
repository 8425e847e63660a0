"""One image's review as a value: its state, the pieces of work it was cut into, the answers, and the truth, if any."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from converters.annotation import Annotation, TruthLevel
from converters.label_studio.controls import Tier, Verdict
from review_workflow.errors import ReviewError
from review_workflow.people import Person
from review_workflow.states import START, Happened, ReviewState, successor

TIER_LEVELS = {
    Tier.TECHNICIAN: TruthLevel.TECHNICIAN,
    Tier.DERMATOLOGIST: TruthLevel.DERMATOLOGIST,
    Tier.QA: TruthLevel.QA,
}


@dataclass(frozen=True, slots=True, order=True)
class WorkKey:
    """What a piece of work is: which image, which tier, which round of that tier, which reader's slot (from 1)."""

    image_id: str
    tier: Tier
    round: int
    slot: int

    def __str__(self) -> str:
        return f"{self.image_id}:{int(self.tier)}:{self.round}:{self.slot}"

    @classmethod
    def parse(cls, text: str) -> WorkKey:
        """The key of its text form; raises ReviewError where it is none."""
        try:
            image_id, tier, number, slot = text.rsplit(":", 3)
            return cls(image_id, Tier(int(tier)), int(number), int(slot))
        except ValueError as error:
            raise ReviewError("task key", text, "image:tier:round:slot", "Leave the task's key as it was.") from error


class WorkStatus(StrEnum):
    """Whether a piece of work still waits for its answer."""

    WAITING = "waiting"
    ANSWERED = "answered"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Work:
    """One reader's task: who should do it, why it came back, and what the reader has to be told."""

    key: WorkKey
    assignee: str | None = None
    status: WorkStatus = WorkStatus.WAITING
    reason: str = ""
    told: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody said on a piece of work; `changed` tells whether the lesions differ from what was shown.

    `blind` tells that nothing was shown, by policy.
    """

    key: WorkKey
    annotation: Annotation
    verdict: Verdict | None = None
    reason: str = ""
    changed: bool = True
    source: str = ""
    blind: bool = False


@dataclass(frozen=True, slots=True)
class Review:
    """The whole story of one image so far; `version` counts the stored changes, `revision` the approvals reopened.

    `known` is set on gold tasks only: the truth that their reader is measured by.
    """

    image_id: str
    state: ReviewState = START
    revision: int = 1
    version: int = 0
    works: tuple[Work, ...] = ()
    answers: tuple[Answer, ...] = ()
    truth: Annotation | None = None
    known: Annotation | None = None

    def work(self, key: WorkKey) -> Work | None:
        """The piece of work with a key, or None."""
        return next((work for work in self.works if work.key == key), None)

    def answer(self, key: WorkKey) -> Answer | None:
        """The answer that stands on a piece of work, or None."""
        return next((answer for answer in self.answers if answer.key == key), None)

    def round(self, tier: Tier) -> int:
        """The newest round of a tier, 0 where it was never opened."""
        return max((work.key.round for work in self.works if work.key.tier is tier), default=0)

    def current(self, tier: Tier) -> tuple[Work, ...]:
        """The work of the tier's newest round that was not cancelled, by slot."""
        newest = self.round(tier)
        return tuple(
            sorted(
                (w for w in self.works if w.key.tier is tier and w.key.round == newest and _counts(w)),
                key=lambda work: work.key,
            )
        )

    def readings(self, tier: Tier) -> tuple[Answer, ...]:
        """The answers of the tier's newest round, by slot."""
        found = (self.answer(work.key) for work in self.current(tier))
        return tuple(answer for answer in found if answer is not None)

    def newest(self, tier: Tier) -> Answer | None:
        """The latest round's first answer of a tier, whatever became of the round, or None."""
        given = [answer for answer in self.answers if answer.key.tier is tier]
        return max(given, key=lambda a: (a.key.round, -a.key.slot), default=None)

    def moved(self, happened: Happened) -> Review:
        """The review after an event; raises TransitionError where the table forbids it."""
        return replace(self, state=successor(self.state, happened))

    def with_work(self, *works: Work) -> Review:
        """The review with pieces of work added, or replaced where the key is known."""
        fresh = {work.key: work for work in works}
        kept = tuple(fresh.pop(work.key, work) for work in self.works)
        return replace(self, works=(*kept, *fresh.values()))

    def with_answer(self, answer: Answer) -> Review:
        """The review with an answer put on its work, which is answered by that."""
        others = tuple(known for known in self.answers if known.key != answer.key)
        work = self.work(answer.key) or Work(answer.key)
        answered = replace(work, status=WorkStatus.ANSWERED, told="")
        return replace(self.with_work(answered), answers=(*others, answer))

    def without_waiting(self, tiers: Iterable[Tier] = tuple(Tier)) -> Review:
        """The review with all unanswered work of the given tiers cancelled."""
        wanted = set(tiers)
        waiting = [w for w in self.works if w.status is WorkStatus.WAITING and w.key.tier in wanted]
        return self.with_work(*(replace(work, status=WorkStatus.CANCELLED) for work in waiting))


@dataclass(frozen=True, slots=True)
class Submit:
    """Take an answer that somebody submitted in Label Studio; `person` is None where nobody knows them.

    `site` is the place on the body that the image shows, None where that is unknown.
    """

    key: WorkKey
    person: Person | None
    annotation: Annotation
    verdict: Verdict | None = None
    reason: str = ""
    source: str = ""
    site: str | None = None


@dataclass(frozen=True, slots=True)
class SendBack:
    """Send an image back to an earlier tier, with a reason."""

    person: Person
    tier: Tier
    reason: str


@dataclass(frozen=True, slots=True)
class Reassign:
    """Give a waiting piece of work to somebody else (None: to whoever has the role)."""

    person: Person
    key: WorkKey
    assignee: str | None


@dataclass(frozen=True, slots=True)
class Withdraw:
    """End the review because consent was withdrawn."""

    person: Person
    reason: str


Command = Submit | SendBack | Reassign | Withdraw


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a review, ready for the audit log."""

    happened: Happened | str
    actor: str
    role: str
    tier: Tier | None = None
    key: WorkKey | None = None
    verdict: Verdict | None = None
    reason: str = ""
    source: str = ""
    before: Annotation | None = None
    after: Annotation | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a command leads to: the review afterwards and what happened, or the reason why it was refused."""

    review: Review
    events: tuple[Event, ...] = ()
    refusal: str = ""


def _counts(work: Work) -> bool:
    return work.status is not WorkStatus.CANCELLED
