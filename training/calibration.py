"""What is set on the validation split after training: temperature, operating point, conformal threshold. All pure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from ml_backend import preprocessing
from ml_backend.preprocessing import Floats
from training.metrics import Array, Flags

Labels = NDArray[np.intp]
_TEMPERATURES = (0.25, 8.0)


def temperature(logits: Floats, labels: Labels) -> float:
    """The temperature in [0.25, 8] of the least negative log-likelihood; 1 without cases.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    if not len(labels):
        return 1.0

    def loss(log_temperature: float) -> float:
        shares = preprocessing.softmax(logits, math.exp(log_temperature))
        return float(-np.log(np.maximum(shares[np.arange(len(labels)), labels], 1e-12)).mean())

    low, high = (math.log(edge) for edge in _TEMPERATURES)
    return round(math.exp(float(optimize.minimize_scalar(loss, bounds=(low, high), method="bounded").x)), 4)


def operating_point(malignant_shares: Array, malignant: Flags, goal: float) -> float | None:
    """The highest share of malignant diagnoses that still flags `goal` of the malignant cases; None without any."""
    shares = np.sort(malignant_shares[malignant])
    if not shares.size:
        return None
    missed = math.floor((1 - goal) * shares.size + 1e-9)
    return float(np.floor(shares[missed] * 1e4) / 1e4)


def conformal_threshold(probabilities: Array, labels: Labels, coverage: float) -> float | None:
    """The largest 1 - p that a class of the differential may have, for the given coverage; None with too few cases.

    Source: split conformal prediction, Sadinle, Lei and Wasserman 2019.
    """
    count = len(labels)
    rank = math.ceil((count + 1) * coverage)
    if rank > count:
        return None
    scores = np.sort(1 - probabilities[np.arange(count), labels])
    return float(min(np.ceil(scores[rank - 1] * 1e6) / 1e6, 1.0))


def malignant_shares(probabilities: Array, malignant_columns: Flags) -> Array:
    """The summed probability of the malignant classes for each case."""
    return np.asarray(probabilities[:, malignant_columns].sum(axis=1))
