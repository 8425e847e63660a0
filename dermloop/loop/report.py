"""What each stage of the loop reports, and what must hold before the next one starts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from dermloop.stages import StageLine, broken

STAGES = (
    "ingest",
    "preannotate",
    "tier1",
    "tier2",
    "tier3",
    "freeze",
    "train",
    "evaluate",
    "gate",
    "promote",
    "swap",
    "refresh",
)


class LoopReport:
    """Prints each stage as it ends and remembers whether every stage came and held."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._lines: list[StageLine] = []

    @property
    def lines(self) -> tuple[StageLine, ...]:
        """The stages so far, in the order in which they ended."""
        return tuple(self._lines)

    @property
    def complete(self) -> bool:
        """Whether all stages came, in order, and each one held."""
        return tuple(line.stage for line in self._lines) == STAGES and all(line.holds for line in self._lines)

    def add(self, line: StageLine) -> StageLine:
        """Prints and remembers a stage."""
        self._lines.append(line)
        self._out.write(line.encode().decode())
        self._out.flush()
        return line

    def timed(self, stage: str, work: Callable[[], tuple[Mapping[str, Any], Mapping[str, bool]]]) -> StageLine:
        """Runs a stage that returns its counts and its promises (a sentence each, and whether it was kept)."""
        start = time.monotonic()
        counts, promises = work()
        return self.add(StageLine(stage, time.monotonic() - start, counts, broken(promises)))
