"""A spatial transformer network: looks once at the whole crop, then turns, shifts and scales it before it is read.

Source: Jaderberg et al. 2015, Spatial Transformer Networks. Import only after `networks.keras_library()`.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_SLOWLY = 0.1
"""The localisation network learns at a tenth of the rate: a crop that is thrown out of view early teaches nothing."""


@keras.saving.register_keras_serializable("dermloop")
class BilinearSampler(keras.layers.Layer):  # type: ignore[misc]
    """Pictures (N, H, W, C) sampled through affine maps (N, 6) of the output grid, both in [-1, 1]; edges repeat."""

    def call(self, inputs: tuple[Any, Any]) -> Any:
        """The sampled pictures, of the same shape; differentiable in picture and map."""
        pictures, maps = inputs
        _, height, width, channels = pictures.shape
        theta = ops.reshape(ops.cast(maps, "float32"), (-1, 2, 3))
        source = ops.matmul(theta, ops.convert_to_tensor(_grid(height, width)))
        x = (source[:, 0] + 1) * (width - 1) / 2
        y = (source[:, 1] + 1) * (height - 1) / 2
        x0, y0 = ops.floor(x), ops.floor(y)
        flat = ops.reshape(ops.cast(pictures, "float32"), (-1, height * width, channels))
        total = 0.0
        for column, x_share in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            for row, y_share in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
                place = ops.clip(row, 0, height - 1) * width + ops.clip(column, 0, width - 1)
                index = ops.expand_dims(ops.cast(place, "int32"), -1)
                total += ops.take_along_axis(flat, index, axis=1) * ops.expand_dims(x_share * y_share, -1)
        return ops.cast(ops.reshape(total, (-1, height, width, channels)), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The pictures' own shape."""
        return input_shape[0]


def transformed(pictures: Any) -> Any:
    """The pictures (N, H, W, C) through a localisation network that starts as the identity."""
    layers = keras.layers
    seen = pictures
    for number, filters in enumerate((16, 32, 32)):
        seen = layers.Conv2D(filters, 5, strides=2, padding="same", activation="relu", name=f"locate_{number}")(seen)
    seen = layers.Flatten(name="locate_flat")(seen)
    seen = layers.Dense(32, activation="relu", name="locate_dense")(seen)
    moves = layers.Dense(6, kernel_initializer="zeros", dtype="float32", name="locate_map")(seen)
    maps = moves * _SLOWLY + np.array(_IDENTITY, dtype=np.float32)
    return BilinearSampler(name="sampler")([pictures, maps])


def _grid(height: int, width: int) -> Any:
    y, x = ops.meshgrid(ops.linspace(-1.0, 1.0, height), ops.linspace(-1.0, 1.0, width), indexing="ij")
    x, y = ops.reshape(x, (-1,)), ops.reshape(y, (-1,))
    return ops.cast(ops.stack([x, y, ops.ones_like(x)]), "float32")
