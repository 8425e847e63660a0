"""Two reports on the same images side by side: what differs, and whether that may be chance. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.cases import measures, resample_weights
from training.report import EvaluationReport

_RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two models: both values, one less the other, and its 95 % interval over resampled patients.

    `better` is +1 or -1 where the interval leaves out 0, in the direction that is better; 0 where it may be chance.
    """

    metric: str
    value: float
    other: float
    gap: float
    low: float
    high: float
    better: int


def differences(one: EvaluationReport, other: EvaluationReport) -> tuple[Difference, ...]:
    """The paired difference of every metric that both have; none where they were measured on different images."""
    if one.split_digest != other.split_digest or len(one.cases) != len(other.cases):
        return ()
    names = [metric.name for metric in one.metrics if other.get(metric.name) is not None]
    known = [name for name in names if one.classes == other.classes or not name.startswith("recall.")]
    return tuple(_difference(name, one, other) for name in known)


def _difference(name: str, one: EvaluationReport, other: EvaluationReport) -> Difference:
    here, there = one.table(), other.table()
    mine, theirs = measures(one.classes)[name], measures(other.classes)[name]
    weights = resample_weights(here.groups, _RESAMPLES, seed=0)
    gaps = np.array([mine.value(here, row) - theirs.value(there, row) for row in weights])
    gaps = gaps[~np.isnan(gaps)]
    low, high = np.percentile(gaps, [2.5, 97.5]) if gaps.size else (math.nan, math.nan)
    sign = (1 if low > 0 else -1 if high < 0 else 0) * (1 if mine.higher_is_better else -1)
    value, before = one.value(name), other.value(name)
    return Difference(name, value, before, value - before, float(low), float(high), sign)
