"""Whose answers in an export count for how much: the truth policy file of a conversion."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.annotation import Finding, TruthLevel
from converters.errors import DatasetError
from converters.truth import TruthPolicy

_KNOWN = frozenset({"minimum", "agreement_iou", "readers", "default", "ground_truth", "empty"})


@dataclass(frozen=True, slots=True)
class ExportPolicy:
    """Standing of the readers of an export, by e-mail address or user number, and what makes a truth.

    An annotation marked as ground truth in Label Studio has at least the level `ground_truth`. `empty` is what an
    annotation without regions and without a stated finding means: by default nobody confirmed anything.
    """

    truth: TruthPolicy = field(default_factory=lambda: TruthPolicy(minimum=TruthLevel.TECHNICIAN))
    readers: Mapping[str, TruthLevel] = field(default_factory=dict)
    default: TruthLevel = TruthLevel.TECHNICIAN
    ground_truth: TruthLevel = TruthLevel.CONSENSUS
    empty: Finding = Finding.NOT_LOOKED_AT

    def level(self, reader: str, ground_truth: bool) -> TruthLevel:
        """Standing of one reader's answer."""
        level = self.readers.get(reader, self.default)
        return max(level, self.ground_truth) if ground_truth else level


def read_policy(path: Path) -> ExportPolicy:
    """The policy of a TOML file; raises DatasetError naming the file and what it does not know.

    Keys: `minimum`, `agreement_iou`, `default`, `ground_truth`, `empty`, and a table `readers`.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return _decoded(raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = f"a policy of {', '.join(sorted(_KNOWN))}; levels are {', '.join(_LEVELS)}"
        raise DatasetError(str(path), str(error), expected, "Correct the policy file.") from error


_LEVELS = {level.name.lower(): level for level in TruthLevel}


def _decoded(raw: Mapping[str, Any]) -> ExportPolicy:
    if unknown := sorted(set(raw) - _KNOWN):
        raise KeyError(", ".join(unknown))
    agreement = float(raw.get("agreement_iou", 0.5))
    if not 0 <= agreement <= 1:
        raise ValueError(f"agreement_iou {agreement}")
    return ExportPolicy(
        truth=TruthPolicy(_LEVELS[raw.get("minimum", "technician")], agreement),
        readers={str(name): _LEVELS[level] for name, level in raw.get("readers", {}).items()},
        default=_LEVELS[raw.get("default", "technician")],
        ground_truth=_LEVELS[raw.get("ground_truth", "consensus")],
        empty=Finding(raw.get("empty", Finding.NOT_LOOKED_AT)),
    )
