"""Random views keep the lesion in view, and the same seed gives the same views."""

from __future__ import annotations

import numpy as np

from training import augment
from training.config import ClassifierConfig

PLAIN = ClassifierConfig(
    flip=False, rotation=0, shift=0, zoom=0, shear=0, brightness=0, tint=0, contrast=0, saturation=0, image_size=32
)


def wide_crops(count: int = 4) -> np.ndarray:
    size, _ = augment.wide_size(PLAIN)
    crops = np.full((count, size, size, 3), 200, dtype=np.uint8)
    crops[:, size // 2 - 5 : size // 2 + 5, size // 2 - 5 : size // 2 + 5] = (80, 40, 30)
    return crops


def test_without_randomness_the_view_is_the_served_window() -> None:
    crops = wide_crops()
    margin = (crops.shape[1] - 32) // 2
    views = augment.augmented(crops, PLAIN, np.random.default_rng(0))
    assert views.shape == (4, 32, 32, 3)
    assert np.abs(views[0].astype(int) - crops[0, margin : margin + 32, margin : margin + 32]).mean() < 6


def test_the_same_seed_gives_the_same_views_and_another_seed_others() -> None:
    config = ClassifierConfig(image_size=32)
    one, same, other = (augment.augmented(wide_crops(), config, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_every_view_still_shows_the_lesion() -> None:
    config = ClassifierConfig(image_size=32)
    views = augment.augmented(wide_crops(50), config, np.random.default_rng(0))
    darkest = views[:, 8:24, 8:24].min(axis=(1, 2, 3))
    assert (darkest < 100).all()


def test_shades_of_grey_takes_a_colour_cast_away() -> None:
    cast = np.full((1, 8, 8, 3), (200, 150, 100), dtype=np.uint8)
    balanced = augment.shades_of_grey(cast)[0].reshape(-1, 3).astype(int)
    assert np.ptp(balanced.mean(axis=0)) <= 2


def test_mixed_targets_still_sum_to_one() -> None:
    generator = np.random.default_rng(0)
    targets = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    batch, soft = augment.mixed(np.ones((4, 2, 2, 3), dtype=np.float32), targets, 0.4, generator)
    assert np.allclose(soft.sum(axis=1), 1)
    assert np.allclose(batch, 1)
    same, _ = augment.mixed(batch, targets, 0.0, generator)
    assert same is batch
