"""The estimate of the readers' reliability, kept in the database and made anew as more has been read."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from converters.label_studio.controls import Tier
from converters.taxonomy import Taxonomy
from review_workflow import reliability
from review_workflow.decisions import POLICY_ACTOR
from review_workflow.policy import Policy, Vote
from review_workflow.reliability import ReaderReliability
from review_workflow.review import Event
from review_workflow.states import ReviewState
from review_workflow.store import Session, Store

_FACT, _COUNT = "reliability", "reliability answers"
_GROWN = 1.05
_NEWEST = 2000
_READ = (ReviewState.AGREED, ReviewState.DISPUTED, ReviewState.APPROVED, ReviewState.EXCLUDED)


class Estimates:
    """The newest estimate for decisions, and every earlier one under its digest for whoever asks years later."""

    def __init__(self, store: Store, policy: Policy, taxonomy: Taxonomy, clock: Callable[[], float]) -> None:
        self._store = store
        self._policy = policy
        self._taxonomy = taxonomy
        self._clock = clock

    def current(self, session: Session) -> ReaderReliability | None:
        """The newest estimate, None where the policy counts every voice the same or nothing was read by several."""
        if self._policy.merge.diagnosis is not Vote.DAWID_SKENE:
            return None
        found = session.fact(_FACT)
        return _decoded(found) if found else None

    def refresh(self) -> bool:
        """Whether there is a new estimate now; one is made when a twentieth more answers have come in."""
        if self._policy.merge.diagnosis is not Vote.DAWID_SKENE:
            return False
        with self._store.reading() as session:
            count, last = session.answered(Tier.DERMATOLOGIST), int(session.fact(_COUNT) or 0)
            if count <= last * _GROWN:
                return False
            reviews, known = session.newest_reviews(_READ, _NEWEST), session.fact(_FACT)
        found = reliability.estimate(reviews, self._taxonomy, self._policy.agreement.iou)
        with self._store.writing() as session:
            session.put_fact(_COUNT, str(count))
            if found is None or found.encode() == known:
                return False
            self._keep(session, found)
        return True

    def _keep(self, session: Session, found: ReaderReliability) -> None:
        session.put_fact(_FACT, found.encode())
        session.put_fact(f"{_FACT} {found.digest[:12]}", found.encode())
        readers = ", ".join(f"{reader} {found.correct(reader):.2f}" for reader in found.readers)
        reason = f"estimate {found.digest[:12]} from {found.lesions} lesions; right by share: {readers}"
        event = Event("reliability estimated", POLICY_ACTOR, "service", reason=reason)
        session.record_events("", [event], self._policy.digest, self._clock())


@lru_cache(maxsize=2)
def _decoded(text: str) -> ReaderReliability:
    return reliability.decode(text)
