"""Where a training runs: on this machine, or where another package offers to run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from training.errors import ConfigError

if TYPE_CHECKING:
    from converters.dataset import DatasetVersion
    from training.config import TrainingConfig
    from training.runs import Progress
    from training.tuning import Tuned

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class TrainOrder:
    """One part to train on a version, in a home folder; `resume` names the run to take up again."""

    stage: Literal["detector", "classifier"]
    version: DatasetVersion
    home: Path
    config: TrainingConfig
    resume: str = ""


@dataclass(frozen=True, slots=True)
class TuneOrder:
    """Settings of one part to search on a version; `grid` walks all choices instead of a Bayesian search."""

    stage: Literal["detector", "classifier"]
    version: DatasetVersion
    home: Path
    config: TrainingConfig
    trials: int
    grid: bool = False
    resume: str = ""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training brought: its run, and the version of the bundle that now lies in the home's models."""

    run_id: str
    version: str


class Target(Protocol):
    """A place where trainings run; both methods return when the result lies in the home folder."""

    def train(self, order: TrainOrder, progress: Progress) -> Trained:
        """The written bundle of a training."""
        ...

    def tune(self, order: TuneOrder, progress: Progress) -> Tuned:
        """The best settings of a search."""
        ...


class LocalTarget:
    """This machine."""

    def train(self, order: TrainOrder, progress: Progress) -> Trained:
        """The bundle of a training in this process, its other part taken from the champion."""
        from training import registry, retrain, runs

        run, settings, models = None, order.config, order.home / "models"
        if order.resume:
            folder = order.home / "runs" / order.resume
            runs.require_same(runs.read_status(folder), order.stage, order.version.digest)
            run, settings = runs.resume(folder, progress)
        parts = retrain.train(
            order.version,
            models=models,
            runs=order.home / "runs",
            config=settings,
            only=order.stage,
            progress=progress,
            resumed=run,
        )
        bundle = retrain.pair(parts, order.version, models, settings, registry.champion(models))
        return Trained(parts.run_id, bundle.version)

    def tune(self, order: TuneOrder, progress: Progress) -> Tuned:
        """The best settings of a study in this process; it goes on where it was stopped."""
        from training import tuning

        choices = {name: one for name, one in tuning.SPACES[order.stage].items() if one.choices}
        return tuning.tune(
            order.version,
            order.stage,
            folder=order.home / "runs" / "tuning",
            config=order.config,
            trials=order.trials,
            sampler="grid" if order.grid else "bayesian",
            space=choices if order.grid else None,
            progress=progress,
        )


_MAKERS: dict[str, Callable[[], Target]] = {LOCAL: LocalTarget}


def offer(name: str, make: Callable[[], Target]) -> None:
    """Makes a place known under a name; it is made when a training asks for it."""
    _MAKERS[name] = make


def find(name: str) -> Target:
    """The place of a name; raises ConfigError naming those that there are."""
    if name not in _MAKERS:
        raise ConfigError("--on", name, f"one of {', '.join(_MAKERS)}", "Name one of these.")
    return _MAKERS[name]()
