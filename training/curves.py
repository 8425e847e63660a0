"""Curves and tables of a report, out of its cases: pure functions, points in the order in which they are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from training import metrics
from training.cases import CaseTable

Curve: TypeAlias = tuple[tuple[float, float], ...]
_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MOST_POINTS = 200


@dataclass(frozen=True, slots=True)
class ThresholdRow:
    """What flagging from a share of malignant diagnoses upwards would mean: sensitivity, specificity, share flagged."""

    threshold: float
    sensitivity: float
    specificity: float
    flagged: float


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class as the classifier meets it; NaN where there is no case, or it is never predicted."""

    name: str
    support: int
    recall: float
    precision: float
    f1: float
    auc: float


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Answers of similar certainty: their mean certainty, how often they were right, how many they are."""

    certainty: float
    right: float
    cases: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often a differential holds the truth, and how many classes it has on average."""

    covered: float
    mean_size: float


def precision_recall(table: CaseTable) -> Curve:
    """(recall, precision) at IoU 0.5 as the score threshold falls; empty without lesions or detections."""
    hits = _sorted_hits(table)
    if not len(hits) or table.lesions.sum() == 0:
        return ()
    found = np.cumsum(hits)
    return _thinned(found / table.lesions.sum(), found / np.arange(1, len(hits) + 1))


def froc(table: CaseTable) -> Curve:
    """(false alarms per image, sensitivity) at IoU 0.5 as the score threshold falls.

    Source: Chakraborty 1989, free-response receiver operating characteristic.
    """
    hits = _sorted_hits(table)
    if not len(hits) or table.lesions.sum() == 0:
        return ()
    return _thinned(np.cumsum(~hits) / len(table.images), np.cumsum(hits) / table.lesions.sum())


def threshold_table(table: CaseTable) -> tuple[ThresholdRow, ...]:
    """Sensitivity and specificity for malignancy at fixed thresholds."""
    ones = np.ones(len(table.readings))
    rows = []
    for threshold in _THRESHOLDS:
        flagged = table.malignant_share >= threshold
        sensitivity = metrics.share(flagged, ones * table.malignant)
        specificity = metrics.share(~flagged, ones * ~table.malignant)
        rows.append(ThresholdRow(threshold, sensitivity, specificity, metrics.share(flagged, ones)))
    return tuple(rows)


def class_table(table: CaseTable) -> tuple[ClassRow, ...]:
    """Recall, precision, F1 and one-against-the-rest AUC of each class."""
    matrix = table.confusion(table.ones)
    recalls, precisions = metrics.recalls(matrix), metrics.precisions(matrix)
    ones = np.ones(len(table.readings))
    rows = []
    for column, name in enumerate(table.classes):
        recall, precision = float(recalls[column]), float(precisions[column])
        f1 = 2 * recall * precision / (recall + precision) if recall + precision > 0 else 0.0 * (recall + precision)
        area = metrics.auc(table.truth == column, table.probabilities[:, column], ones)
        rows.append(ClassRow(name, int(matrix[column].sum()), recall, precision, f1, area))
    return tuple(rows)


def reliability(table: CaseTable, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Certainty against correctness in equal-width bins; empty bins are left out."""
    if not len(table.readings):
        return ()
    top, right = table.probabilities.max(axis=1), table.probabilities.argmax(axis=1) == table.truth
    place = np.minimum((top * bins).astype(int), bins - 1)
    chosen = [place == number for number in range(bins)]
    return tuple(
        ReliabilityBin(float(top[own].mean()), float(right[own].mean()), int(own.sum())) for own in chosen if own.any()
    )


def uncalibrated_error(table: CaseTable, temperature: float) -> float:
    """The expected calibration error before the temperature was applied; NaN without readings."""
    if not len(table.readings):
        return math.nan
    raised = table.probabilities**temperature
    return metrics.calibration_error(raised / raised.sum(axis=1, keepdims=True), table.truth, np.ones(len(raised)))


def abstention(table: CaseTable) -> Curve:
    """(share answered, accuracy of the answers) when the least certain readings are passed on to a person first."""
    if not len(table.readings):
        return ()
    order = np.argsort(-table.probabilities.max(axis=1), kind="stable")
    right = (table.probabilities.argmax(axis=1) == table.truth)[order]
    count = np.arange(1, len(right) + 1)
    return _thinned(count / len(right), np.cumsum(right) / count)


def coverage(table: CaseTable, threshold: float) -> Coverage | None:
    """What the conformal sets of a threshold cover; None without readings. An empty set counts as its top class."""
    if not len(table.readings):
        return None
    inside = 1 - table.probabilities <= threshold
    empty = ~inside.any(axis=1)
    inside[empty, table.probabilities[empty].argmax(axis=1)] = True
    covered = inside[np.arange(len(table.truth)), table.truth]
    return Coverage(float(covered.mean()), float(inside.sum(axis=1).mean()))


def _sorted_hits(table: CaseTable) -> metrics.Flags:
    return np.asarray(table.hits[0][np.argsort(-table.scores, kind="stable")], dtype=bool)


def _thinned(x: metrics.Array, y: metrics.Array) -> Curve:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(int))
    return tuple((float(x[i]), float(y[i])) for i in chosen)
