"""What a classifier's numbers say of one lesion: calibrated shares, their sums over the taxonomy, a differential."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from converters.taxonomy import Severity, Target, Taxonomy
from ml_backend.bundle import ClassifierSpec

_MALIGNANCY_NAMES = {"benign": "Benign", "malignant": "Malignant"}


@dataclass(frozen=True, slots=True)
class Reading:
    """A calibrated reading of one crop.

    `probabilities` are (class, share) in the classifier's index order. `differential` is the conformal set, most likely
    first, or every class where the bundle promises no coverage. `severity` and `malignant` are sums over the taxonomy
    (None where the target is too coarse to tell). `abstains` is true where the differential leaves open whether the
    lesion is malignant. `uncertainty` is the normalised entropy in [0, 1]. `cam` is the class activation map (h, w) of
    the top class, in [0, 1], over the crop window.
    """

    target: Target
    probabilities: tuple[tuple[str, float], ...]
    differential: tuple[str, ...]
    severity: tuple[tuple[str, float], ...] | None
    malignant: float
    abstains: bool
    uncertainty: float
    cam: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    @property
    def top(self) -> str:
        """The most likely class."""
        return max(self.probabilities, key=lambda pair: pair[1])[0]


def read(shares: Sequence[float], spec: ClassifierSpec, taxonomy: Taxonomy) -> Reading:
    """The reading of calibrated shares in the classifier's index order."""
    pairs = tuple((name, float(share)) for name, share in zip(spec.classes, shares, strict=True))
    differential, covered = _differential(pairs, spec.conformal_threshold)
    sides = {malignant for name in differential for malignant in _sides(name, spec.target, taxonomy)}
    return Reading(
        target=spec.target,
        probabilities=pairs,
        differential=differential,
        severity=_by_severity(pairs, spec.target, taxonomy),
        malignant=_malignant(pairs, spec.target, taxonomy),
        abstains=spec.conformal_threshold is not None and (not covered or len(sides) > 1),
        uncertainty=_entropy(shares),
    )


def top_severity(reading: Reading, taxonomy: Taxonomy) -> str:
    """The severity that a reading amounts to; for a malignancy reading the most urgent one of its side."""
    if reading.severity is not None:
        return max(reading.severity, key=lambda pair: pair[1])[0]
    side = reading.top == "malignant"
    return max((d.severity for d in taxonomy.diagnoses if d.malignant == side), key=lambda s: s.rank).value


def display_name(name: str, target: Target, taxonomy: Taxonomy) -> str:
    """How a class is called on a screen."""
    if target is Target.DIAGNOSIS:
        return taxonomy.resolve(name).name
    return f"{name.capitalize()} severity" if target is Target.SEVERITY else _MALIGNANCY_NAMES[name]


def _differential(pairs: tuple[tuple[str, float], ...], threshold: float | None) -> tuple[tuple[str, ...], bool]:
    ranked = sorted(pairs, key=lambda pair: -pair[1])
    if threshold is None:
        return tuple(name for name, _ in ranked), False
    inside = tuple(name for name, share in ranked if 1 - share <= threshold)
    return (inside, True) if inside else ((ranked[0][0],), False)


def _sides(name: str, target: Target, taxonomy: Taxonomy) -> set[bool]:
    if target is Target.MALIGNANCY:
        return {name == "malignant"}
    if target is Target.DIAGNOSIS:
        return {taxonomy.resolve(name).malignant}
    return {d.malignant for d in taxonomy.diagnoses if d.severity == name}


def _by_severity(
    pairs: tuple[tuple[str, float], ...], target: Target, taxonomy: Taxonomy
) -> tuple[tuple[str, float], ...] | None:
    if target is Target.SEVERITY:
        return pairs
    if target is Target.MALIGNANCY:
        return None
    sums = dict.fromkeys((severity.value for severity in Severity), 0.0)
    for name, share in pairs:
        sums[taxonomy.resolve(name).severity.value] += share
    return tuple(sums.items())


def _malignant(pairs: tuple[tuple[str, float], ...], target: Target, taxonomy: Taxonomy) -> float:
    return sum(share for name, share in pairs if True in _sides(name, target, taxonomy))


def _entropy(shares: Sequence[float]) -> float:
    total = -sum(share * math.log(share) for share in shares if share > 0)
    return min(max(total / math.log(len(shares)), 0.0), 1.0) if len(shares) > 1 else 0.0
