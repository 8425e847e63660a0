"""Which crops an epoch shows, and what class frequencies take from the logits while training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml_backend.preprocessing import Floats
from training.config import ClassifierConfig
from training.datasets import Crops

LOGIT_ADJUSTED = "logit-adjusted"
BY_SOURCE = "logit-adjusted-by-source"
_NEVER = 1e-6


def epoch_size(crops: Crops, config: ClassifierConfig) -> int:
    """The crops that an epoch shows."""
    return sum(_shown(len(group), config) for group in _groups(crops))


def drawn(crops: Crops, config: ClassifierConfig, generator: np.random.Generator) -> NDArray[np.intp]:
    """The crops of an epoch in random order; of each class from each source at most `most_per_class`, drawn anew."""
    if not config.most_per_class:
        return generator.permutation(len(crops.labels))
    chosen = [generator.permutation(group)[: _shown(len(group), config)] for group in _groups(crops)]
    return generator.permutation(np.concatenate(chosen))


def evened(order: NDArray[np.intp], batch: int) -> NDArray[np.intp]:
    """The crops of an epoch in batches of one size (B, n), n being at most `batch`; a few come twice to fill the last.

    A batch of another size would have the network's graph traced once more, which costs as much as many batches.
    """
    count = -(-len(order) // batch)
    size = -(-len(order) // max(count, 1))
    return np.resize(order, (count, size))


def log_priors(crops: Crops, classes: int, config: ClassifierConfig) -> Floats:
    """What is added to the logits (N, C) of each crop while training: the log of class frequencies, or nothing.

    By source, the frequencies are those of the crop's own source: that one clinic sends more melanomas than another
    then says nothing about a lesion. Source: Menon et al. 2021, Long-Tail Learning via Logit Adjustment.
    """
    priors = np.zeros((len(crops.labels), classes), dtype=np.float32)
    if config.class_weights not in (LOGIT_ADJUSTED, BY_SOURCE):
        return priors
    shares = np.zeros(len(crops.labels))
    for group in _groups(crops):
        shares[group] = _shown(len(group), config) / len(group)
    sources = np.array(crops.sources if config.class_weights == BY_SOURCE else [""] * len(priors))
    for source in np.unique(sources):
        here = sources == source
        counts = np.bincount(crops.labels[here], shares[here], minlength=classes)
        priors[here] = np.log(np.maximum(counts, _NEVER) / counts.sum())
    return priors


def smoothed(targets: Floats, priors: Floats, smoothing: float) -> Floats:
    """Targets (N, C) with a share given to all classes that the crop's source has at all."""
    possible = (priors > np.log(_NEVER)).astype(np.float32)
    spread = possible / possible.sum(axis=1, keepdims=True)
    return np.asarray(targets * (1 - smoothing) + spread * smoothing, dtype=np.float32)


def _groups(crops: Crops) -> list[NDArray[np.intp]]:
    """The crops of each class from each source, in an order that is equal for equal crops."""
    pairs = np.array([f"{source}|{label}" for source, label in zip(crops.sources, crops.labels, strict=True)])
    return [np.flatnonzero(pairs == pair) for pair in np.unique(pairs)]


def _shown(count: int, config: ClassifierConfig) -> int:
    return min(count, config.most_per_class) if config.most_per_class else count
