"""The fused optimizer against Keras' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]


def trained(keras: Any, kind: Any) -> list[np.ndarray[Any, Any]]:
    """Weights, moments and averages after thirty steps whose gradients are clipped."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, "relu"), layers.BatchNormalization(), layers.Dense(3)]
    )
    rate = keras.optimizers.schedules.CosineDecay(1e-3, 40, alpha=0.02, warmup_target=0.01, warmup_steps=5)
    optimizer = kind(rate, weight_decay=0.05, clipnorm=0.05, use_ema=True, ema_momentum=0.9)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    model.compile(optimizer, loss="mse", jit_compile=False)
    generator = np.random.default_rng(0)
    for _ in range(30):
        model.train_on_batch(generator.normal(size=(7, 8)), generator.normal(size=(7, 3)))
    return [np.asarray(one) for one in (*model.weights, *optimizer.variables)]


def test_the_fused_optimizer_goes_where_keras_own_goes() -> None:
    from training import networks

    keras = networks.keras_library()
    from training.fused_adamw import FusedAdamW

    for fused, plain in zip(trained(keras, FusedAdamW), trained(keras, keras.optimizers.AdamW), strict=True):
        assert fused == pytest.approx(plain, abs=1e-5)
