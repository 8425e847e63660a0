"""What a stage of the loop reports: a line of JSON that processes hand to one another and people read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class StageLine:
    """One stage's outcome: how long it took, its counts, and what did not hold (empty where all held)."""

    stage: str
    seconds: float
    counts: Mapping[str, Any] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether everything that the stage promises was seen."""
        return not self.failures

    def encode(self) -> bytes:
        """One line of JSON: stage, seconds, ok, then the counts, then the failures."""
        row: dict[str, Any] = {"stage": self.stage, "seconds": round(self.seconds, 2), "ok": self.holds, **self.counts}
        if self.failures:
            row["failures"] = list(self.failures)
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)

    @classmethod
    def decode(cls, line: bytes) -> StageLine:
        """The stage of a line that `encode` wrote."""
        row = orjson.loads(line)
        failures = tuple(row.pop("failures", ()))
        row.pop("ok", None)
        return cls(row.pop("stage"), row.pop("seconds"), row, failures)


def broken(promises: Mapping[str, bool]) -> tuple[str, ...]:
    """The sentences that did not hold."""
    return tuple(sentence for sentence, kept in promises.items() if not kept)
