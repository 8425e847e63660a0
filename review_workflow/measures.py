"""How well readers agree: boxes by matching, masks by Dice, labels by chance-corrected coefficients with intervals.

Sources: Cohen 1960 (doi:10.1177/001316446002000104); Fleiss 1971 (doi:10.1037/h0031619); Krippendorff, *Content
Analysis*, 4th ed., chapter 12; percentile bootstrap, Efron and Tibshirani 1993.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from converters.annotation import Annotation, Lesion
from converters.geometry import RleMask

_RESAMPLES = 1000
_SEED = 20


@dataclass(frozen=True, slots=True)
class BoxAgreement:
    """Agreement of two readings' boxes: F1 of the matched ones and their mean IoU, all in [0, 1].

    Two readings without any lesion agree fully (F1 1); without a match the mean IoU is 0.
    """

    f1: float
    mean_iou: float
    matched: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value and its 95 % bootstrap interval; all NaN where the data do not define it."""

    value: float
    low: float
    high: float


class Scale(StrEnum):
    """How far apart two labels are: different is different, or by rank, or by distance."""

    NOMINAL = "nominal"
    ORDINAL = "ordinal"
    INTERVAL = "interval"


def match(one: Sequence[Lesion], other: Sequence[Lesion], iou: float) -> list[tuple[int, int]]:
    """Index pairs that maximise the summed IoU of all pairs overlapping at least `iou`; each lesion at most once."""
    if not one or not other:
        return []
    overlap = np.array([[a.box.iou(b.box) for b in other] for a in one])
    rows, columns = linear_sum_assignment(np.where(overlap >= iou, overlap, 0.0), maximize=True)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if overlap[r, c] >= iou]


def box_agreement(one: Annotation, other: Annotation, iou: float) -> BoxAgreement:
    """How well the boxes of two readings agree, their labels left aside."""
    pairs = match(one.lesions, other.lesions, iou)
    total = len(one.lesions) + len(other.lesions)
    if total == 0:
        return BoxAgreement(1.0, 1.0, 0)
    shared = sum(one.lesions[a].box.iou(other.lesions[b].box) for a, b in pairs)
    return BoxAgreement(2 * len(pairs) / total, shared / len(pairs) if pairs else 0.0, len(pairs))


def dice(one: RleMask, other: RleMask) -> float:
    """Dice coefficient of two masks of the same image, in [0, 1]; two empty masks agree fully."""
    a, b = one.to_array(), other.to_array()
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def cohen_kappa(one: Sequence[str], other: Sequence[str]) -> float:
    """Cohen's kappa of two readers' labels, unit by unit; NaN where both always say the same single label."""
    labels = sorted({*one, *other})
    place = {label: index for index, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)))
    for a, b in zip(one, other, strict=True):
        table[place[a], place[b]] += 1
    if (total := table.sum()) == 0:
        return math.nan
    observed = np.trace(table) / total
    expected = float((table.sum(axis=0) * table.sum(axis=1)).sum()) / total**2
    return float((observed - expected) / (1 - expected)) if expected < 1 else math.nan


def fleiss_kappa(counts: NDArray[np.int_]) -> float:
    """Fleiss' kappa of a table (units × labels) of how many readers chose each label; every row has the same sum."""
    readers = counts.sum(axis=1)
    if counts.size == 0 or np.any(readers != readers[0]) or readers[0] < 2:
        return math.nan
    n = float(readers[0])
    observed = float((((counts**2).sum(axis=1) - n) / (n * (n - 1))).mean())
    expected = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def krippendorff_alpha(values: NDArray[np.float64], scale: Scale = Scale.NOMINAL) -> float:
    """Krippendorff's alpha of values (readers × units, NaN = not read); NaN where nothing can disagree."""
    labels = np.unique(values[~np.isnan(values)])
    if labels.size < 2:
        return math.nan
    counts = np.stack([(values == label).sum(axis=0) for label in labels], axis=1).astype(float)
    counts = counts[counts.sum(axis=1) >= 2]
    if counts.size == 0:
        return math.nan
    pairs = counts.sum(axis=1, keepdims=True) - 1
    observed = (counts / pairs).T @ counts - np.diag((counts / pairs).sum(axis=0))
    marginal = observed.sum(axis=0)
    expected = (np.outer(marginal, marginal) - np.diag(marginal)) / (marginal.sum() - 1)
    distance = _distances(labels, marginal, scale)
    spread = float((expected * distance).sum())
    return 1 - float((observed * distance).sum()) / spread if spread > 0 else math.nan


def with_interval(
    measure: Callable[[NDArray[np.float64]], float], values: NDArray[np.float64], resamples: int = _RESAMPLES
) -> Interval:
    """A measure of values (readers × units) with the percentile interval over resampled units; the seed is fixed."""
    generator = np.random.default_rng(_SEED)
    units = values.shape[1]
    drawn = [measure(values[:, generator.integers(0, units, units)]) for _ in range(resamples)] if units else []
    known = [value for value in drawn if not math.isnan(value)]
    if not known:
        return Interval(measure(values) if units else math.nan, math.nan, math.nan)
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(measure(values), float(low), float(high))


def _distances(labels: NDArray[np.float64], marginal: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    if scale is Scale.NOMINAL:
        return 1.0 - np.eye(labels.size)
    if scale is Scale.INTERVAL:
        return np.asarray((labels[:, None] - labels[None, :]) ** 2)
    middle = np.cumsum(marginal) - marginal / 2
    return np.asarray((middle[:, None] - middle[None, :]) ** 2)
