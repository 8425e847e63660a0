"""Metrics agree with the reference implementations, and weights mean repetition."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from converters.geometry import PixelBox
from training import metrics

SEEDS = st.integers(0, 10_000)


def random_boxes(generator: np.random.Generator, count: int) -> list[PixelBox]:
    corners = generator.uniform(0, 60, (count, 2))
    sides = generator.uniform(10, 50, (count, 2))
    return [PixelBox(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners.tolist(), sides.tolist(), strict=True)]


def shaken(generator: np.random.Generator, boxes: list[PixelBox]) -> list[PixelBox]:
    return [box.moved(*generator.normal(0, 4, 2).tolist()) for box in boxes] + random_boxes(generator, 2)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_agrees_with_pycocotools(seed: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    generator = np.random.default_rng(seed)
    truths = [random_boxes(generator, int(generator.integers(0, 4))) for _ in range(20)]
    found = [shaken(generator, boxes) for boxes in truths]
    scores = [np.sort(generator.uniform(0, 1, len(boxes)))[::-1] for boxes in found]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(20)],
            "categories": [{"id": 1}],
            "annotations": [
                {"id": n + 1, "image_id": i, "category_id": 1, "bbox": xywh(box), "area": box.area, "iscrowd": 0}
                for n, (i, box) in enumerate((i, box) for i, boxes in enumerate(truths) for box in boxes)
            ],
        }
        coco.createIndex()
        results = [
            {"image_id": i, "category_id": 1, "bbox": xywh(box), "score": float(score)}
            for i in range(20)
            for box, score in zip(found[i], scores[i], strict=True)
        ]
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    hits = np.concatenate([metrics.match(t, f) for t, f in zip(truths, found, strict=True)], axis=1)
    everything = np.concatenate(scores)
    ours = metrics.average_precision(everything, hits, sum(map(len, truths)), np.ones(len(everything)))
    assert ours.mean() == pytest.approx(judge.stats[0], abs=1e-3)
    assert ours[0] == pytest.approx(judge.stats[1], abs=1e-3)


def xywh(box: PixelBox) -> list[float]:
    return [box.x_min, box.y_min, box.width, box.height]


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_classification_metrics_agree_with_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.ones(4), 60)
    truth = np.concatenate((np.arange(4), generator.integers(0, 4, 56)))
    weights = generator.integers(1, 4, 60).astype(float)
    matrix = metrics.confusion(truth, shares.argmax(axis=1), 4, weights)
    expected = reference.balanced_accuracy_score(truth, shares.argmax(axis=1), sample_weight=weights)
    assert metrics.balanced_accuracy(matrix) == pytest.approx(expected)
    expected = reference.accuracy_score(truth, shares.argmax(axis=1), sample_weight=weights)
    assert metrics.accuracy(matrix) == pytest.approx(expected)
    rough = np.round(shares[:, 1], 1)
    expected = reference.roc_auc_score(truth == 1, rough, sample_weight=weights)
    assert metrics.auc(truth == 1, rough, weights) == pytest.approx(expected)
    expected = reference.top_k_accuracy_score(truth, shares, k=3, labels=range(4), sample_weight=weights)
    assert metrics.top_k(shares, truth, 3, weights) == pytest.approx(expected)
    expected = np.average(((shares - np.eye(4)[truth]) ** 2).sum(axis=1), weights=weights)
    assert metrics.brier(shares, truth, weights) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_a_weight_of_two_counts_as_two_cases(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, hits = generator.uniform(0, 1, 12), generator.random((10, 12)) < 0.6
    twice = metrics.average_precision(np.repeat(scores, 2), np.repeat(hits, 2, axis=1), 20, np.ones(24))
    weighted = metrics.average_precision(scores, hits, 20, np.full(12, 2.0))
    assert weighted == pytest.approx(twice, abs=0.02)


def test_without_cases_every_metric_is_nan_and_never_a_number() -> None:
    none, empty = np.zeros(0), np.zeros((0, 3))
    indices = np.zeros(0, dtype=np.intp)
    values = [
        metrics.average_precision(none, np.zeros((10, 0), dtype=bool), 0, none).mean(),
        metrics.balanced_accuracy(metrics.confusion(indices, indices, 3, none)),
        metrics.share(np.zeros(0, dtype=bool), none),
        metrics.auc(np.zeros(0, dtype=bool), none, none),
        metrics.brier(empty, indices, none),
        metrics.calibration_error(empty, indices, none),
    ]
    assert all(math.isnan(value) for value in values)


def test_a_certain_and_always_right_classifier_has_no_calibration_error() -> None:
    truth = np.array([0, 1, 2])
    assert metrics.calibration_error(np.eye(3)[truth], truth, np.ones(3)) == 0
    assert metrics.calibration_error(np.eye(3)[truth], (truth + 1) % 3, np.ones(3)) == 1


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_the_calibration_error_is_what_its_definition_says_bin_by_bin(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.ones(3), 50)
    truth, weights = generator.integers(0, 3, 50), generator.integers(0, 3, 50).astype(float)
    weights[0] = 1
    total = 0.0
    for low in np.arange(10) / 10:
        own = [n for n in range(50) if low <= shares[n].max() < low + 0.1]
        mass = sum(weights[n] for n in own)
        if mass:
            right = sum(weights[n] * (shares[n].argmax() == truth[n]) for n in own) / mass
            sure = sum(weights[n] * shares[n].max() for n in own) / mass
            total += mass * abs(right - sure)
    assert metrics.calibration_error(shares, truth, weights) == pytest.approx(total / weights.sum(), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_recalls_and_precisions_agree_with_scikit_learn_class_by_class(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = np.concatenate((np.arange(4), generator.integers(0, 4, 40)))
    named = np.concatenate((np.arange(4), generator.integers(0, 4, 40)))
    weights = generator.integers(1, 4, 44).astype(float)
    matrix = metrics.confusion(truth, named, 4, weights)
    expected = reference.precision_recall_fscore_support(truth, named, labels=range(4), sample_weight=weights)
    assert metrics.precisions(matrix) == pytest.approx(expected[0])
    assert metrics.recalls(matrix) == pytest.approx(expected[1])


def plain_match(truths: list[PixelBox], found: list[PixelBox]) -> np.ndarray:
    """COCO's greedy matching, pair by pair."""
    hits = np.zeros((10, len(found)), dtype=bool)
    for row, threshold in enumerate(metrics.IOU_THRESHOLDS):
        free = set(range(len(truths)))
        for column, box in enumerate(found):
            fits = [(box.iou(truths[n]), n) for n in free if box.iou(truths[n]) >= min(threshold, 1 - 1e-10)]
            if fits:
                free.discard(max(fits)[1])
                hits[row, column] = True
    return hits


@settings(deadline=None)
@given(seed=SEEDS, lesions=st.integers(0, 5), copies=st.integers(0, 3))
def test_matching_all_thresholds_at_once_is_matching_them_one_by_one(seed: int, lesions: int, copies: int) -> None:
    generator = np.random.default_rng(seed)
    truths = random_boxes(generator, lesions)
    truths += truths[:1]  # two of equal overlap
    found = truths[:2] + [box for _ in range(copies) for box in shaken(generator, truths)]
    assert np.array_equal(metrics.match(truths, found), plain_match(truths, found))
    wanted = [[one.iou(other) for other in truths] for one in found]
    assert metrics.overlaps(found, truths).tolist() == wanted
