"""Metrics as pure functions of arrays; each takes a weight for every case, so that a bootstrap only changes weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from converters.geometry import PixelBox

Array: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]
Indices: TypeAlias = NDArray[np.intp]

IOU_THRESHOLDS: Array = np.linspace(0.5, 0.95, 10, dtype=np.float64)
_RECALLS: Array = np.linspace(0.0, 1.0, 101, dtype=np.float64)


def match(truths: Sequence[PixelBox], found: Sequence[PixelBox]) -> Flags:
    """Which detections hit a lesion: shape (10 IoU thresholds from 0.50 to 0.95, detections); `found` is best first.

    Each detection takes the best lesion that no better one has taken. Source: COCO's evaluation (Lin et al. 2014).
    """
    hits = np.zeros((len(IOU_THRESHOLDS), len(found)), dtype=bool)
    if not truths or not found:
        return hits
    shared = overlaps(found, truths)
    taken = np.zeros((len(IOU_THRESHOLDS), len(truths)), dtype=bool)
    rows, last = np.arange(len(IOU_THRESHOLDS)), len(truths) - 1
    for column in np.flatnonzero(shared.max(axis=1) >= IOU_THRESHOLDS[0]):
        free = np.where(taken, -1.0, shared[column])
        best = last - free[:, ::-1].argmax(axis=1)  # COCO lets the last of equal overlaps win
        hits[:, column] = free[rows, best] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
        taken[rows, best] |= hits[:, column]
    return hits


def overlaps(some: Sequence[PixelBox], others: Sequence[PixelBox]) -> Array:
    """Intersection over union (some, others) of boxes, as `PixelBox.iou` has it; 0 where both are empty."""
    x0, y0, x1, y1 = _edges(some).T[:, :, None]
    left, top, right, bottom = _edges(others).T
    width, height = np.minimum(x1, right) - np.maximum(x0, left), np.minimum(y1, bottom) - np.maximum(y0, top)
    shared = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    union = (x1 - x0) * (y1 - y0) + (right - left) * (bottom - top) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1.0), 0.0)


def average_precision(scores: Array, hits: Flags, lesions: float, weights: Array) -> Array:
    """Average precision in [0, 1] for each row of `hits`; NaN where there is no lesion.

    `scores` (n,) and `hits` (T, n) are detections of all images in any order, `weights` (n,) how often each counts,
    `lesions` the weighted number of true lesions. Source: COCO's 101-point interpolation.
    """
    if lesions <= 0:
        return np.full(len(hits), math.nan)
    order = np.argsort(-scores, kind="stable")
    weights = weights[order]
    total = np.maximum(np.cumsum(weights), 1e-12)
    areas = np.zeros(len(hits))
    for row, flags in enumerate(hits[:, order]):
        true = np.cumsum(weights * flags)
        envelope = np.maximum.accumulate((true / total)[::-1])[::-1]
        places = np.searchsorted(true / lesions, _RECALLS - 1e-12, side="left")
        areas[row] = np.append(envelope, 0.0)[places].mean()
    return areas


def confusion(truth: Indices, predicted: Indices, classes: int, weights: Array) -> Array:
    """Weighted counts (classes, classes): row the true class, column the predicted one."""
    counts = np.bincount(truth * classes + predicted, weights=weights, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.float64)


def recalls(matrix: Array) -> Array:
    """Share of each class that was recognised; NaN for a class without cases."""
    return _ratio(np.diag(matrix), matrix.sum(axis=1))


def precisions(matrix: Array) -> Array:
    """Share of each predicted class that was right; NaN for a class never predicted."""
    return _ratio(np.diag(matrix), matrix.sum(axis=0))


def accuracy(matrix: Array) -> float:
    """Share of cases that were right; NaN without cases."""
    return _share(float(np.trace(matrix)), float(matrix.sum()))


def balanced_accuracy(matrix: Array) -> float:
    """Mean of the recalls of the classes that occur; NaN without cases."""
    present = recalls(matrix)
    present = present[~np.isnan(present)]
    return float(present.mean()) if present.size else math.nan


def share(flags: Flags, weights: Array) -> float:
    """Weighted share of true flags; NaN without cases."""
    return _share(float((weights * flags).sum()), float(weights.sum()))


def auc(positive: Flags, scores: Array, weights: Array) -> float:
    """Area under the ROC curve: how often a positive outranks a negative, ties counting half; NaN without both."""
    order = np.argsort(scores, kind="stable")
    scores, positive, weights = scores[order], positive[order], weights[order]
    plus, minus = weights * positive, weights * ~positive
    if plus.sum() <= 0 or minus.sum() <= 0:
        return math.nan
    _, starts = np.unique(scores, return_index=True)
    block_plus, block_minus = np.add.reduceat(plus, starts), np.add.reduceat(minus, starts)
    below = np.cumsum(block_minus) - block_minus
    return float((block_plus * (below + block_minus / 2)).sum() / (plus.sum() * minus.sum()))


def brier(probabilities: Array, truth: Indices, weights: Array) -> float:
    """Mean squared distance between probabilities (n, C) and the one-hot truth, in [0, 2]; NaN without cases."""
    if weights.sum() <= 0:
        return math.nan
    wanted = np.eye(probabilities.shape[1])[truth]
    return float((weights * ((probabilities - wanted) ** 2).sum(axis=1)).sum() / weights.sum())


def calibration_error(probabilities: Array, truth: Indices, weights: Array, bins: int = 10) -> float:
    """Expected calibration error in [0, 1] over equal-width bins of the top probability; NaN without cases.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    if weights.sum() <= 0:
        return math.nan
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((top * bins).astype(np.intp), bins - 1)
    gaps = np.bincount(place, weights=weights * (right - top), minlength=bins)
    return float(np.abs(gaps).sum() / weights.sum())


def top_k(probabilities: Array, truth: Indices, k: int, weights: Array) -> float:
    """Share of cases whose true class is among the k most likely; NaN without cases."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return share((best == truth[:, None]).any(axis=1), weights)


def _edges(boxes: Sequence[PixelBox]) -> Array:
    edges = [(box.x_min, box.y_min, box.x_max, box.y_max) for box in boxes]
    return np.array(edges, dtype=np.float64).reshape(len(boxes), 4)


def _ratio(part: Array, whole: Array) -> Array:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), math.nan)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
