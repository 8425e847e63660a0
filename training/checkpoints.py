"""Where a killed classifier training goes on: weights, the optimizer's moments, the schedule's place, of one epoch.

A kill at any moment leaves the files of the last finished epoch whole: the small state file moves last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from converters.whole import whole_file, write_whole

_STATE, _BEST = "classifier-state.json", "classifier-best.npz"


@dataclass(slots=True)
class TrainingState:
    """Epochs done, the best score and its epoch, and epochs since the score last rose or the rate last fell."""

    epoch: int = 0
    best: float = -np.inf
    best_epoch: int = 0
    waited: int = 0


def read_state(folder: Path) -> TrainingState:
    """The state of the last finished epoch; a fresh one before the first."""
    path = folder / _STATE
    return TrainingState(**orjson.loads(path.read_bytes())) if path.is_file() else TrainingState()


def save(folder: Path, state: TrainingState, model: Any) -> None:
    """Stores model, optimizer and state of an epoch; the files of the epoch before go once the state has moved on.

    Plain arrays: Keras' own format takes five times as long, and a large network has as much to store as to learn.
    """
    kept = _file(folder, state.epoch)
    _write(kept, [*model.weights, *_moments(model)])
    write_whole(folder / _STATE, orjson.dumps(asdict(state)))
    for old in folder.glob("classifier-epoch-*.npz"):
        if old != kept:
            old.unlink(missing_ok=True)


def load_weights(folder: Path, state: TrainingState, model: Any) -> None:
    """Puts the weights of the state's epoch into a model."""
    _read(_file(folder, state.epoch), model.weights)


def load_moments(folder: Path, state: TrainingState, model: Any) -> None:
    """Puts moments, averages, step count, learning rate and dropout's random states into a model with an optimizer."""
    _read(_file(folder, state.epoch), _moments(model), len(model.weights))


def keep_best(folder: Path, model: Any) -> None:
    """Stores a model's weights as the best so far."""
    _write(folder / _BEST, model.weights)


def has_best(folder: Path) -> bool:
    """Whether any epoch's weights are kept as the best."""
    return (folder / _BEST).is_file()


def settle(folder: Path, model: Any, checkpoint: Path) -> None:
    """Puts the best weights into the model and, in Keras' own format, into the checkpoint of a finished training."""
    best = folder / _BEST
    if not best.is_file():
        model.load_weights(checkpoint)
        return
    _read(best, model.weights)
    with whole_file(checkpoint) as draft:
        model.save_weights(draft)
    best.unlink()


def _write(path: Path, variables: Sequence[Any]) -> None:
    """Writes the numbers of variables, whole or not at all."""
    with whole_file(path) as draft, draft.open("wb") as stream:
        np.savez(stream, *(np.asarray(one) for one in variables))


def _read(path: Path, variables: Sequence[Any], first: int = 0) -> None:
    with np.load(path, allow_pickle=False) as found:
        for number, variable in enumerate(variables, first):
            variable.assign(found[f"arr_{number}"])


def _moments(model: Any) -> list[Any]:
    """What a training goes on from besides weights: the optimizer's variables and the random layers' seeds."""
    weights = {id(one) for one in model.weights}
    return [*model.optimizer.variables, *(one for one in model.variables if id(one) not in weights)]


def _file(folder: Path, epoch: int) -> Path:
    return folder / f"classifier-epoch-{epoch:04d}.npz"
