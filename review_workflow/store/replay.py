"""The states of all images as the audit log tells them, to be held against those in the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from review_workflow.states import START, TRANSITIONS, Happened

_STEPS = {(before.value, happened.value): after.value for (before, happened), after in TRANSITIONS.items()}
_MOVING = frozenset(happened.value for happened in Happened)


class Replay:
    """Follows the declared transitions entry by entry; what is not under review or moves nothing is passed over."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._last: dict[str, int] = {}

    def step(self, seq: int, image_id: str, happened: str) -> str:
        """A complaint where an entry cannot follow what was told before, else empty."""
        if happened not in _MOVING:
            return ""
        self._last[image_id] = seq
        if happened == Happened.REGISTERED:
            self._states[image_id] = START.value
            return ""
        before = self._states.get(image_id)
        if before is None:
            return ""
        after = _STEPS.get((before, happened))
        if after is None:
            return f"tells that an image was {happened} while it was {before}"
        self._states[image_id] = after
        return ""

    def compare(self, states: Mapping[str, str]) -> Iterator[tuple[int, str]]:
        """Each image whose state is not where the log left it: the last entry about it, and a sentence."""
        for image_id, told in self._states.items():
            found = states.get(image_id)
            if found != told:
                is_now = f"is {found}" if found else "is not there"
                yield self._last[image_id], f"leaves image {image_id} {told}, but the image {is_now}"
