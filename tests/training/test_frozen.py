"""The frozen phase from kept features, against the same phase behind the backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.taxonomy import Target
from ml_backend.bundle import Scaling
from training.config import ClassifierConfig
from training.datasets import Crops
from training.networks import NetworkPlan

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
PLAN = NetworkPlan("Compact", Target.SEVERITY, ("low", "moderate", "high"), 32, False, Scaling.SIGNED)
CONFIG = ClassifierConfig()


def crops() -> Crops:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(8, dtype=np.intp) % 3
    return Crops(pixels, labels, ("",) * 8, np.eye(3, dtype=np.float32)[labels], 0, ("",) * 8)


def batches(found: Crops) -> Iterator[tuple[Any, Any, Any]]:
    """Two batches of four."""
    for part in np.arange(8).reshape(2, 4):
        yield found.pixels[part].astype(np.float32) / 127.5 - 1, found.shares[part], np.ones(4, dtype=np.float32)


def network(keras: Any) -> Any:
    """A network of fixed chances whose backbone is frozen."""
    from training import networks

    keras.utils.set_random_seed(3)
    model, backbone = networks.build(PLAN, None, 0.5)
    for layer in backbone.layers:
        layer.trainable = False
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(0.01), loss, jit_compile=False)
    return model


def test_a_head_learns_from_kept_features_what_it_learns_behind_the_backbone(tmp_path: Path) -> None:
    from training import networks
    from training.frozen import frozen_backbone

    keras, found = networks.keras_library(), crops()
    whole, cut, again = network(keras), network(keras), network(keras)
    for _ in range(2):
        for batch, targets, weights in batches(found):
            whole.train_on_batch(batch, targets, sample_weight=weights)
    for model, made in ((cut, batches(found)), (again, iter(()))):
        frozen = frozen_backbone(keras, model, found, CONFIG, PLAN, tmp_path)
        frozen.head.compile(model.optimizer, model.loss, jit_compile=False)
        for epoch in (0, 0):
            for features, targets, weights in frozen.batches(epoch, made):
                frozen.head.train_on_batch(features, targets, sample_weight=weights)
        for one, other in zip(whole.get_weights(), model.get_weights(), strict=True):
            assert one == pytest.approx(other, abs=1e-5)
    assert len(list(tmp_path.iterdir())) == 1


def test_features_are_kept_for_their_backbone_their_crops_and_their_views_alone(tmp_path: Path) -> None:
    from training import networks
    from training.frozen import frozen_backbone

    keras, found = networks.keras_library(), crops()
    model = network(keras)
    other = replace(found, pixels=found.pixels[::-1])
    kinds = [(found, CONFIG), (found, replace(CONFIG, rotation=10.0)), (other, CONFIG), (found, CONFIG)]
    kinds.append((found, replace(CONFIG, dropout=0.1, epochs=3, learning_rate=0.5)))
    keys = [frozen_backbone(keras, model, *kind, PLAN, tmp_path).key for kind in kinds]
    model.layers[1].set_weights([weight + 1 for weight in model.layers[1].get_weights()])
    keys.append(frozen_backbone(keras, model, found, CONFIG, PLAN, tmp_path).key)
    assert keys[0] == keys[3] == keys[4]
    assert len(set(keys)) == 4
