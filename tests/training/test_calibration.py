"""Thresholds set on the validation split keep what they promise on data drawn alike."""

from __future__ import annotations

import numpy as np
import pytest

from ml_backend import preprocessing
from training import calibration


def made_up(count: int, sharpness: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (count, 3))
    shares = preprocessing.softmax(logits.astype(np.float32))
    labels = np.array([generator.choice(3, p=row) for row in shares])
    return (logits * sharpness).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_temperature_undoes_over_and_underconfidence(sharpness: float) -> None:
    logits, labels = made_up(6000, sharpness, 0)
    assert calibration.temperature(logits, labels) == pytest.approx(sharpness, rel=0.1)


def test_the_conformal_set_covers_what_it_promises() -> None:
    logits, labels = made_up(4000, 1.0, 1)
    shares = preprocessing.softmax(logits)
    threshold = calibration.conformal_threshold(shares[:2000], labels[:2000], 0.9)
    assert threshold is not None
    covered = 1 - shares[2000:][np.arange(2000), labels[2000:]] <= threshold
    assert covered.mean() == pytest.approx(0.9, abs=0.025)


def test_too_few_cases_promise_no_coverage() -> None:
    logits, labels = made_up(5, 1.0, 2)
    assert calibration.conformal_threshold(preprocessing.softmax(logits), labels, 0.9) is None


def test_the_operating_point_flags_the_share_it_must() -> None:
    generator = np.random.default_rng(3)
    shares, malignant = generator.random(1000), generator.random(1000) < 0.3
    point = calibration.operating_point(shares, malignant, 0.9)
    assert point is not None
    assert 0.9 <= (shares[malignant] >= point).mean() < 0.91
    assert calibration.operating_point(shares, np.zeros(1000, dtype=bool), 0.9) is None


def test_without_cases_the_temperature_is_one() -> None:
    assert calibration.temperature(np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.intp)) == 1.0
