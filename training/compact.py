"""A small network for a few thousand lesion crops and no pretrained weights, read out at four scales.

Colour and fine texture decide as much as shape does: the pooled head sees the features of every stage, not of the last
alone. Import only after `networks.keras_library()`.
"""

from __future__ import annotations

from typing import Any

import keras

WIDTHS = (32, 64, 128, 256)
STEP = 16
"""The side of a crop in pixels must be a multiple of this."""


def backbone(size: int) -> Any:
    """Pictures (N, S, S, 3) to maps (N, S/16, S/16, 480): stages of 1, 2, 2 and 2 convolutions, all side by side."""
    pictures = keras.Input((size, size, 3))
    seen = _convolved(pictures, WIDTHS[0], "stem", kernel=5, stride=2)
    seen = _convolved(seen, WIDTHS[0], "stage_0")
    stages = [seen]
    for number, width in enumerate(WIDTHS[1:], 1):
        seen = keras.layers.MaxPooling2D(name=f"halve_{number}")(seen)
        seen = _convolved(seen, width, f"stage_{number}a")
        seen = _convolved(seen, width, f"stage_{number}b")
        stages.append(seen)
    side = size // STEP
    pooled = [_levelled(stage, stage.shape[1] // side, number) for number, stage in enumerate(stages)]
    return keras.Model(pictures, keras.layers.Concatenate(name="scales")(pooled), name="compact")


def _convolved(seen: Any, width: int, name: str, kernel: int = 3, stride: int = 1) -> Any:
    layers = keras.layers
    convolution = layers.Conv2D(
        width, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )
    # a few thousand crops are over before statistics that follow slowly arrive
    normal = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")
    return layers.ReLU(name=f"{name}_relu")(normal(convolution(seen)))


def _levelled(stage: Any, factor: int, number: int) -> Any:
    """The stage's maps at the last stage's size and of one variance, so that none drowns the others."""
    if factor > 1:
        stage = keras.layers.AveragePooling2D(factor, name=f"pool_{number}")(stage)
    return keras.layers.BatchNormalization(momentum=0.9, name=f"level_{number}")(stage)
