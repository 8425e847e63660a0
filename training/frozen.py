"""The phase in which the backbone is frozen: a crop's features do not change, so they are reckoned once and kept.

The head learns from exactly the views, in exactly the order, that it would see behind the backbone; another run on the
same crops with the same backbone finds them in the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from converters.whole import whole_file
from ml_backend.preprocessing import Floats
from training.config import ClassifierConfig
from training.datasets import Crops
from training.networks import NetworkPlan

Batch: TypeAlias = tuple[Floats, Floats, Floats]
"""Crops or their features, their targets with what is added to the logits behind them (N, 2 C), and weights (N)."""

_OF_THE_HEAD = frozenset(
    (
        "epochs",
        "unfrozen_layers",
        "learning_rate",
        "fine_tune_learning_rate",
        "weight_decay",
        "dropout",
        "schedule",
        "plateau_patience",
        "plateau_factor",
        "least_learning_rate",
        "patience",
        "select_by",
        "ema",
        "sensitivity_goal",
        "coverage",
        "parity_tolerance",
    )
)
"""Settings that say how the head learns, not from what."""
_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class FrozenBackbone:
    """A network cut behind its pooling: `head` shares its dropout and linear head, and learns from features alone."""

    head: Any
    body: Any
    cache: Path
    key: str

    def batches(self, epoch: int, made: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of an epoch with features in place of crops; `made` is asked only where no run kept them."""
        path = self.cache / f"features-{self.key}-{epoch}.npz"
        if not path.is_file():
            found = [(self.features(crops), targets, weights) for crops, targets, weights in made]
            columns = [np.stack(column) for column in zip(*found, strict=True)]
            with whole_file(path) as draft, draft.open("wb") as stream:
                np.savez(stream, *columns)
        with np.load(path, allow_pickle=False) as kept:
            yield from zip(*(kept[f"arr_{number}"] for number in range(3)), strict=True)

    def features(self, crops: Floats) -> Floats:
        """What the head sees of scaled crops: (N, S, S, 3) → (N, F)."""
        parts = np.array_split(crops, range(_AT_ONCE, len(crops), _AT_ONCE))
        return np.concatenate([np.asarray(self.body.predict_on_batch(part), dtype=np.float32) for part in parts])


def frozen_backbone(
    keras: Any, model: Any, learn: Crops, config: ClassifierConfig, shape: NetworkPlan, cache: Path
) -> FrozenBackbone:
    """The network of `networks.build` cut in two; what its backbone makes of these crops is kept under `cache`."""
    pooled = model.get_layer("pool").output
    features = keras.Input(pooled.shape[1:])
    head = keras.Model(features, model.get_layer("head")(model.get_layer("dropout")(features)))
    body = keras.Model(model.input, pooled)
    return FrozenBackbone(head, body, cache, _key(body, learn, config, shape))


def _key(body: Any, learn: Crops, config: ClassifierConfig, shape: NetworkPlan) -> str:
    """What decides the features of an epoch: the backbone's weights, the crops, and how these are drawn and turned."""
    settings = {one.name: getattr(config, one.name) for one in fields(config) if one.name not in _OF_THE_HEAD}
    seen = hashlib.sha256(f"1|{settings}|{shape}|{learn.sources}".encode())
    found = () if learn.found is None else (learn.found,)
    for numbers in (learn.pixels, learn.labels, learn.shares, *found, *(np.asarray(one) for one in body.weights)):
        seen.update(np.ascontiguousarray(numbers).data)
    return seen.hexdigest()[:16]
