"""The states of a review and the one table of transitions between them, proven when the module loads."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from review_workflow.errors import TransitionError


class ReviewState(StrEnum):
    """Where an image stands; the value is what Label Studio and the dashboard show."""

    IMPORTED = "imported"
    LABELLED = "labelled"
    IN_REVIEW = "in review"
    AGREED = "agreed"
    DISPUTED = "disputed"
    SENT_BACK = "sent back"
    APPROVED = "approved"
    EXCLUDED = "excluded"
    REOPENED = "reopened"
    SCORED = "scored"
    WITHDRAWN = "withdrawn"


class Happened(StrEnum):
    """What can happen to a review, as past participles; only these move it."""

    REGISTERED = "registered"
    LABELLED = "labelled"
    READ = "read"
    AGREED = "agreed"
    DISPUTED = "disputed"
    SENT_BACK = "sent back"
    RETURNED = "returned"
    APPROVED = "approved"
    EXCLUDED = "excluded"
    REOPENED = "reopened"
    SCORED = "scored"
    WITHDRAWN = "withdrawn"


START = ReviewState.IMPORTED
_S, _H = ReviewState, Happened
_DECIDABLE = (_S.AGREED, _S.DISPUTED, _S.REOPENED)
_LIVING = tuple(state for state in ReviewState if state is not ReviewState.WITHDRAWN)

TRANSITIONS: Mapping[tuple[ReviewState, Happened], ReviewState] = {
    **{(s, _H.LABELLED): _S.LABELLED for s in (_S.IMPORTED, _S.SENT_BACK, _S.LABELLED, _S.REOPENED, _S.SCORED)},
    **{(s, _H.READ): _S.IN_REVIEW for s in (_S.LABELLED, _S.IN_REVIEW, *_DECIDABLE, _S.SCORED)},
    (_S.IN_REVIEW, _H.AGREED): _S.AGREED,
    (_S.IN_REVIEW, _H.DISPUTED): _S.DISPUTED,
    **{(s, _H.SENT_BACK): _S.SENT_BACK for s in (_S.LABELLED, _S.IN_REVIEW, *_DECIDABLE)},
    **{(s, _H.RETURNED): _S.LABELLED for s in _DECIDABLE},
    **{(s, _H.APPROVED): _S.APPROVED for s in _DECIDABLE},
    **{(s, _H.EXCLUDED): _S.EXCLUDED for s in _DECIDABLE},
    **{(s, _H.REOPENED): _S.REOPENED for s in (_S.APPROVED, _S.EXCLUDED)},
    **{(s, _H.SCORED): _S.SCORED for s in (_S.LABELLED, _S.IN_REVIEW)},
    **{(s, _H.WITHDRAWN): _S.WITHDRAWN for s in _LIVING},
}
"""(state, what happened) → next state. What is not in the table cannot happen."""


def successor(state: ReviewState, happened: Happened) -> ReviewState:
    """The state after an event; raises TransitionError where the table has no such step."""
    if (following := TRANSITIONS.get((state, happened))) is None:
        allowed = ", ".join(sorted(h for s, h in TRANSITIONS if s is state)) or "nothing: the state is final"
        raise TransitionError("review", f"{state} + {happened}", allowed, "Look at the image's history.")
    return following


def finals() -> frozenset[ReviewState]:
    """States that nothing leaves."""
    return frozenset(ReviewState) - {state for state, _ in TRANSITIONS}


def prove() -> None:
    """Raises TransitionError unless every state is reachable from the start and only withdrawal is final."""
    reached, edge = {START}, {START}
    while edge:
        edge = {after for (before, _), after in TRANSITIONS.items() if before in edge} - reached
        reached |= edge
    if missing := frozenset(ReviewState) - reached:
        raise TransitionError("transition table", sorted(missing), "every state reachable", "Add or drop states.")
    if finals() != {ReviewState.WITHDRAWN}:
        raise TransitionError("transition table", sorted(finals()), "only withdrawn as final", "Complete the table.")


def diagram() -> str:
    """The table as a Mermaid state diagram; withdrawal, possible everywhere, is drawn once."""
    lines = ["stateDiagram-v2", f"    [*] --> {_node(START)}: {Happened.REGISTERED}"]
    for (before, happened), after in TRANSITIONS.items():
        if happened is not Happened.WITHDRAWN:
            lines.append(f"    {_node(before)} --> {_node(after)}: {happened}")
    lines.append(f"    note right of {_node(ReviewState.SCORED)}: gold tasks only")
    lines.append(f"    note right of {_node(ReviewState.WITHDRAWN)}: from every state, when consent is withdrawn")
    lines.append(f"    {_node(ReviewState.WITHDRAWN)} --> [*]")
    return "\n".join(lines)


def _node(state: ReviewState) -> str:
    return state.value.replace(" ", "_")


prove()
