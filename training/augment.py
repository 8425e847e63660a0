"""Random views of lesion crops: one affine step for every turn, shift, zoom, shear and flip, then colour."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from ml_backend.preprocessing import GREY, Floats, Pixels
from training.config import ClassifierConfig

_BEYOND = 0.4
"""How much of a crop is mirrored at its edges, as a share of its side: what a turn brings into view."""


def wide_size(config: ClassifierConfig) -> tuple[int, float]:
    """Side in pixels and padding of the training crops.

    They are wider than the served window by `crop_margin` on each side, and `oversampling` times finer.
    """
    padding = config.crop_padding + config.crop_margin
    share = (1 + 2 * padding) / (1 + 2 * config.crop_padding)
    return round(config.image_size * share * config.oversampling), padding


def augmented(crops: Pixels, config: ClassifierConfig, generator: np.random.Generator) -> Pixels:
    """Wide crops (N, W, W, 3) as seen through the served window (N, S, S, 3), each turned and coloured at random."""
    views = np.stack([_turned(crop, config, generator) for crop in crops])
    neutral = generator.random(len(views)) < config.colour_constancy
    if neutral.any():
        views[neutral] = shades_of_grey(views[neutral])
    return _coloured(views, config, generator)


def shades_of_grey(crops: Pixels, power: float = 6.0) -> Pixels:
    """Crops (N, S, S, 3) under a neutral light, estimated by the Minkowski mean of each channel.

    Source: Finlayson and Trezzi 2004, Shades of Gray and Colour Constancy.
    """
    values = crops.astype(np.float32) / 255
    light = (values**power).mean(axis=(1, 2)) ** (1 / power)
    gain = light.mean(axis=1, keepdims=True) / np.maximum(light, 1e-3)
    return np.asarray(np.clip(values * gain[:, None, None, :] * 255, 0, 255), dtype=np.uint8)


def mixed(batch: Floats, targets: Floats, alpha: float, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """A batch and its one-hot targets, each blended with another of the batch. Source: Zhang et al. 2018, mixup."""
    if alpha <= 0:
        return batch, targets
    share = np.float32(max(part := generator.beta(alpha, alpha), 1 - part))
    order = generator.permutation(len(batch))
    return share * batch + (1 - share) * batch[order], share * targets + (1 - share) * targets[order]


def _turned(crop: Pixels, config: ClassifierConfig, generator: np.random.Generator) -> Pixels:
    size, edge = config.image_size, round(crop.shape[0] * _BEYOND)
    crop = np.pad(crop, ((edge, edge), (edge, edge), (0, 0)), "reflect")
    wide = crop.shape[0]
    angle = math.radians(generator.uniform(-config.rotation, config.rotation))
    zoom = math.exp(generator.uniform(-config.zoom, config.zoom)) * config.oversampling
    shear = generator.uniform(-config.shear, config.shear)
    flip = -1.0 if config.flip and generator.random() < 0.5 else 1.0
    dx, dy = generator.uniform(-config.shift, config.shift, 2) * size * config.oversampling
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn @ np.array([[flip, shear], [0.0, 1.0]]) * zoom
    offset = np.array([wide / 2 + dx, wide / 2 + dy]) - matrix @ np.array([size / 2, size / 2])
    numbers = (*matrix[0], offset[0], *matrix[1], offset[1])
    image = Image.fromarray(crop).transform(
        (size, size), Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR, fillcolor=(GREY, GREY, GREY)
    )
    return np.asarray(image, dtype=np.uint8)


def _coloured(views: Pixels, config: ClassifierConfig, generator: np.random.Generator) -> Pixels:
    count = (len(views), 1, 1, 1)
    values = views.astype(np.float32)
    values *= generator.uniform(1 - config.tint, 1 + config.tint, (len(views), 1, 1, 3)).astype(np.float32)
    values *= generator.uniform(1 - config.brightness, 1 + config.brightness, count).astype(np.float32)
    mean = values.mean(axis=(1, 2, 3), keepdims=True)
    values = mean + (values - mean) * generator.uniform(1 - config.contrast, 1 + config.contrast, count).astype(
        np.float32
    )
    grey = values.mean(axis=3, keepdims=True)
    values = grey + (values - grey) * generator.uniform(1 - config.saturation, 1 + config.saturation, count).astype(
        np.float32
    )
    return np.asarray(np.clip(values, 0, 255), dtype=np.uint8)
