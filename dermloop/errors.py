"""What can go wrong at the front door: each message names the item, the value, what was expected and the cure."""

from __future__ import annotations


class DermloopError(Exception):
    """Something that a person at the command line can mend; `str()` is one sentence with the cure."""

    def __init__(self, item: str, value: object, expected: str, cure: str) -> None:
        self.item = item
        self.value = value
        self.expected = expected
        self.cure = cure
        super().__init__(f"{item}: got {value!r}; expected {expected}. {cure}")


class JobFailedError(DermloopError):
    """A job's process ended with an error."""


class LoopError(DermloopError):
    """A stage of the loop that cannot go on."""
