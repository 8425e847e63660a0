"""What to do with a stack, by the state it is found in: a table, and nothing that touches AWS."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Step(StrEnum):
    """The next step of a deployment."""

    CREATE = "create"
    UPDATE = "update"
    REMOVE_REMAINS = "remove the remains"
    FINISH_ROLLBACK = "finish the rollback"
    WAIT = "wait"


_STEPS: Mapping[str, Step] = {
    "": Step.CREATE,
    "DELETE_COMPLETE": Step.CREATE,
    "REVIEW_IN_PROGRESS": Step.CREATE,
    "CREATE_COMPLETE": Step.UPDATE,
    "UPDATE_COMPLETE": Step.UPDATE,
    "UPDATE_ROLLBACK_COMPLETE": Step.UPDATE,
    "IMPORT_COMPLETE": Step.UPDATE,
    "IMPORT_ROLLBACK_COMPLETE": Step.UPDATE,
    "IMPORT_ROLLBACK_FAILED": Step.UPDATE,
    "CREATE_FAILED": Step.REMOVE_REMAINS,
    "ROLLBACK_COMPLETE": Step.REMOVE_REMAINS,
    "ROLLBACK_FAILED": Step.REMOVE_REMAINS,
    "DELETE_FAILED": Step.REMOVE_REMAINS,
    "UPDATE_FAILED": Step.UPDATE,
    "UPDATE_ROLLBACK_FAILED": Step.FINISH_ROLLBACK,
}
_GOOD = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"})


def next_step(state: str) -> Step:
    """What a deployment does with a stack in this state ("" where there is none): anything unfinished is waited for."""
    return _STEPS.get(state, Step.WAIT)


def is_settled(state: str) -> bool:
    """Whether nothing more happens to a stack in this state by itself."""
    return not state.endswith("_IN_PROGRESS") or state == "REVIEW_IN_PROGRESS"


def is_good(state: str) -> bool:
    """Whether the stack is as the template says."""
    return state in _GOOD
