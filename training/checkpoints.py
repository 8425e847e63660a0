"""Where a killed classifier training goes on: weights, the optimizer's moments, the schedule's place, of one epoch.

A kill at any moment leaves the files of the last finished epoch whole: the small state file moves last.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from converters.whole import whole_file, write_whole

_STATE = "classifier-state.json"


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
    """Stores model, optimizer and state of an epoch; the files of the epoch before go once the state has moved on."""
    weights, moments = _files(folder, state.epoch)
    save_weights(model, weights)
    with moments.open("wb") as stream:
        np.savez(stream, *(np.asarray(one) for one in _moments(model)))
    write_whole(folder / _STATE, orjson.dumps(asdict(state)))
    for old in (*folder.glob("classifier-epoch-*.h5"), *folder.glob("classifier-epoch-*.npz")):
        if old not in (weights, moments):
            old.unlink(missing_ok=True)


def load_weights(folder: Path, state: TrainingState, model: Any) -> None:
    """Puts the weights of the state's epoch into a model."""
    model.load_weights(_files(folder, state.epoch)[0])


def load_moments(folder: Path, state: TrainingState, model: Any) -> None:
    """Puts moments, averages, step count, learning rate and dropout's random states into a model with an optimizer."""
    with np.load(_files(folder, state.epoch)[1], allow_pickle=False) as found:
        for number, variable in enumerate(_moments(model)):
            variable.assign(found[f"arr_{number}"])


def save_weights(model: Any, path: Path) -> None:
    """Writes a model's weights, whole or not at all."""
    with whole_file(path) as draft:
        model.save_weights(draft)


def _moments(model: Any) -> list[Any]:
    """What a training goes on from besides weights: the optimizer's variables and the random layers' seeds."""
    weights = {id(one) for one in model.weights}
    return [*model.optimizer.variables, *(one for one in model.variables if id(one) not in weights)]


def _files(folder: Path, epoch: int) -> tuple[Path, Path]:
    stem = f"classifier-epoch-{epoch:04d}"
    return folder / f"{stem}.weights.h5", folder / f"{stem}.optimizer.npz"
