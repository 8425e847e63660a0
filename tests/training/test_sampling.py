"""What an epoch shows, and which class frequencies count."""

from __future__ import annotations

import numpy as np
import pytest

from training import sampling
from training.config import ClassifierConfig
from training.datasets import Crops

BY_SOURCE = ClassifierConfig(class_weights="logit-adjusted-by-source")


def crops(*groups: tuple[str, int, int]) -> Crops:
    """So many crops of a class from a source, a group each."""
    labels = np.array([label for _, label, count in groups for _ in range(count)], dtype=np.intp)
    sources = tuple(source for source, _, count in groups for _ in range(count))
    pixels = np.zeros((len(labels), 2, 2, 3), dtype=np.uint8)
    names = tuple(str(number) for number in range(len(labels)))
    return Crops(pixels, labels, names, np.eye(3, dtype=np.float32)[labels], 0, sources)


def test_an_epoch_shows_so_many_crops_of_a_class_from_a_source_and_others_in_the_next() -> None:
    found, config = crops(("a", 0, 30), ("a", 1, 4), ("b", 0, 10)), ClassifierConfig(most_per_class=8)
    generator = np.random.default_rng(0)
    one, next_one = (sampling.drawn(found, config, generator) for _ in range(2))
    assert sampling.epoch_size(found, config) == len(one) == len(set(one.tolist())) == 8 + 4 + 8
    assert np.bincount(found.labels[one]).tolist() == [16, 4]
    assert set(one.tolist()) != set(next_one.tolist())


def test_without_a_limit_an_epoch_shows_every_crop_once() -> None:
    found = crops(("a", 0, 5), ("b", 2, 3))
    assert sorted(sampling.drawn(found, ClassifierConfig(), np.random.default_rng(0)).tolist()) == list(range(8))
    assert sampling.epoch_size(found, ClassifierConfig()) == 8


def test_the_frequencies_of_a_crops_own_source_count() -> None:
    found = crops(("a", 0, 3), ("a", 1, 1), ("b", 1, 1), ("b", 2, 1))
    priors = sampling.log_priors(found, 3, BY_SOURCE)
    assert np.exp(priors[0]) == pytest.approx([0.75, 0.25, 0], abs=1e-5)
    assert np.exp(priors[-1]) == pytest.approx([0, 0.5, 0.5], abs=1e-5)
    together = sampling.log_priors(found, 3, ClassifierConfig(class_weights="logit-adjusted"))
    assert np.exp(together) == pytest.approx(np.tile([1 / 2, 1 / 3, 1 / 6], (6, 1)), abs=1e-5)
    assert not sampling.log_priors(found, 3, ClassifierConfig()).any()


def test_what_an_epoch_leaves_out_does_not_count_as_frequent() -> None:
    config = ClassifierConfig(class_weights="logit-adjusted", most_per_class=10)
    priors = sampling.log_priors(crops(("a", 0, 90), ("a", 1, 10)), 3, config)
    assert np.exp(priors[0]) == pytest.approx([0.5, 0.5, 0], abs=1e-5)


def test_a_class_that_the_source_never_sends_gets_no_share_of_the_smoothing() -> None:
    found = crops(("a", 0, 3), ("a", 1, 1), ("b", 2, 1))
    targets = sampling.smoothed(found.shares, sampling.log_priors(found, 3, BY_SOURCE), 0.1)
    assert targets[0] == pytest.approx([0.95, 0.05, 0])
    assert targets[-1] == pytest.approx([0, 0, 1])
    even = sampling.smoothed(found.shares, np.zeros((5, 3), dtype=np.float32), 0.3)
    assert even[0] == pytest.approx([0.8, 0.1, 0.1])


@pytest.mark.parametrize(("count", "shape"), [(67, (5, 14)), (64, (4, 16)), (5, (1, 5)), (17, (2, 9))])
def test_batches_are_of_one_size_and_show_every_crop(count: int, shape: tuple[int, int]) -> None:
    batches = sampling.evened(np.random.default_rng(0).permutation(count), 16)
    assert batches.shape == shape
    assert np.bincount(batches.ravel(), minlength=count).min() == 1
    assert batches.size - count < len(batches)
