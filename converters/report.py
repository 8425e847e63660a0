"""What a conversion did and what it could not carry: one entry for each loss, tabulated, never silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from converters.errors import ConversionError


class Kind(StrEnum):
    """How an entry is to be taken."""

    SKIPPED = "skipped"
    """An image that has no place in the target by design: nobody looked at it, or nobody could grade it."""
    EXPECTED = "expected"
    """Something the target format has no words for; the format was chosen knowing that."""
    LOST = "lost"
    """A label that did not survive, or came back different; fails the conversion unless allowed."""
    REFUSED = "refused"
    """An input that could not be read without guessing; fails the conversion unless allowed."""


FATAL = frozenset({Kind.LOST, Kind.REFUSED})


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that did not come through: where, what, and what became of it."""

    kind: Kind
    item: str
    field: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.item}, {self.field} {self.value}: {self.reason}"


def refused(error: ConversionError, place: str = "") -> Entry:
    """The entry of an error that went on the list instead of stopping the conversion.

    `place` names file and item where the error itself, raised deeper down, does not.
    """
    item = error.item if not place or error.item.startswith(place) else f"{place}, {error.item}"
    return Entry(Kind.REFUSED, item, "got", repr(error.value)[:200], f"expected {error.expected}. {error.cure}")


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """Counts and entries of one conversion; equal inputs give an equal report."""

    source_format: str
    target_format: str
    images: int = 0
    lesions: int = 0
    backgrounds: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    read_back: bool = True

    @property
    def failures(self) -> tuple[Entry, ...]:
        """The entries that fail a conversion unless losses are allowed."""
        return tuple(entry for entry in self.entries if entry.kind in FATAL)

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "from": self.source_format,
            "to": self.target_format,
            "images": self.images,
            "lesions": self.lesions,
            "backgrounds": self.backgrounds,
            "classes": dict(sorted(self.classes.items())),
            "splits": dict(self.splits),
            "read_back": self.read_back,
            "counts": summary(self.entries),
            "entries": [
                {"kind": e.kind.value, "item": e.item, "field": e.field, "value": e.value, "reason": e.reason}
                for e in self.entries
            ],
        }


def summary(entries: Iterable[Entry]) -> dict[str, int]:
    """Number of entries by kind, in the order of severity."""
    counts = Counter(entry.kind for entry in entries)
    return {kind.value: counts[kind] for kind in Kind}
