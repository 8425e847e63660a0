"""What a conversion did and what it could not carry: one entry for each loss, tabulated, never silent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
_SHOWN = 20
_WHOLE = frozenset({"truth", "finding", "image"})
_ONE_LESION = re.compile(r"^lesion \d+ \([^)]*\)+ ")


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
    written: bool = True

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
            "written": self.written,
            "read_back": self.read_back,
            "counts": summary(self.entries),
            "entries": [
                {"kind": e.kind.value, "item": e.item, "field": e.field, "value": e.value, "reason": e.reason}
                for e in self.entries
            ],
        }

    def text(self) -> str:
        """The same for people: counts, every failure up to a number, and other entries by what they say."""
        held = f"{counted(self.images, 'image')}, {counted(self.lesions, 'lesion')}"
        classes = ", ".join(f"{name} {count}" for name, count in self.classes.items())
        free = f"{counted(self.backgrounds, 'lesion-free image')}" if self.backgrounds else ""
        splits = ", ".join(f"{name} {count}" for name, count in self.splits.items() if count)
        lines = [f"{self.source_format} → {self.target_format}: {'' if self.written else 'NOTHING WRITTEN of '}{held}"]
        lines += [f"  {line}" for line in (classes, free, splits) if line]
        return "\n".join((*lines, *ledger(self.entries)))


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as `1 image` and `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ledger(entries: Iterable[Entry], rest: str = "--report FILE keeps them all") -> Iterator[str]:
    """The entries as lines of a table: kind, number, what and why; failures singly, others by what they say.

    At most twenty failures and twenty kinds of other entries; a line says how many more there are, and `rest`.
    """
    found = list(entries)
    fatal = [entry for entry in found if entry.kind in FATAL]
    alike: dict[tuple[Kind, str], list[Entry]] = {}
    for entry in (entry for entry in found if entry.kind not in FATAL):
        alike.setdefault((entry.kind, _saying(entry)), []).append(entry)
    for entry in fatal[:_SHOWN]:
        yield f"  {entry.kind:9} {entry.item}: {_saying(entry)}"
    if len(fatal) > _SHOWN:
        yield f"  … {len(fatal) - _SHOWN} more failures; {rest}"
    for (kind, saying), same in list(alike.items())[:_SHOWN]:
        first = same[0].item if len(same) == 1 else f"{same[0].item}, …"
        yield f"  {kind:9} {len(same)} × {saying} ({first})"
    if len(alike) > _SHOWN:
        yield f"  … {len(alike) - _SHOWN} more kinds of entries; {rest}"


def _saying(entry: Entry) -> str:
    """Field, value and reason of an entry, without the number of the lesion that they are of."""
    if entry.kind is Kind.SKIPPED and entry.field in _WHOLE:
        return entry.reason
    what = entry.field if entry.kind in FATAL else _ONE_LESION.sub("", entry.field)
    return f"{' '.join(part for part in (what, entry.value) if part)}: {entry.reason}"


def summary(entries: Iterable[Entry]) -> dict[str, int]:
    """Number of entries by kind, in the order of severity."""
    counts = Counter(entry.kind for entry in entries)
    return {kind.value: counts[kind] for kind in Kind}
