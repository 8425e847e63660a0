"""A tuning study refuses what it cannot search before anything is trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from builders_training import version_of

from converters.dataset import DatasetVersion, Split
from training import config, tuning
from training.config import TrainingConfig
from training.errors import ConfigError
from training.runs import Run
from training.tuning import Range


def test_every_searched_name_is_a_setting() -> None:
    for stage, space in tuning.SPACES.items():
        known = config.DetectorConfig if stage == "detector" else config.ClassifierConfig
        assert set(space) <= set(known.__dataclass_fields__)


def test_an_unknown_setting_and_an_endless_grid_are_refused(tmp_path: Path) -> None:
    version = version_of(tmp_path, {Split.TRAIN: 2, Split.VAL: 1})
    options = {"folder": tmp_path / "tuning", "config": config.TrainingConfig(), "trials": 1}
    with pytest.raises(ConfigError, match="momentum"):
        tuning.tune(version, "detector", space={"momentum": Range(0, 1)}, **options)
    with pytest.raises(ConfigError, match="choices"):
        tuning.tune(version, "detector", space={"learning_rate": Range(0.1, 1)}, sampler="grid", **options)


def peak(version: DatasetVersion, stage: str, run: Run, cache: Path, tried: TrainingConfig) -> float:
    """A score that is best at a learning rate of 0.001."""
    return -abs(math.log(tried.detector.learning_rate / 0.001))


def test_a_resumed_search_tries_new_values_and_keeps_the_best(tmp_path: Path) -> None:
    version = version_of(tmp_path, {Split.TRAIN: 2, Split.VAL: 1})
    options = {"folder": tmp_path / "tuning", "config": TrainingConfig(), "trials": 4, "score": peak}
    first, second = (tuning.tune(version, "detector", **options) for _ in range(2))
    assert (first.trials, second.trials) == (4, 8)
    assert second.score >= first.score
    rates = {config.read(path).detector.learning_rate for path in (tmp_path / "tuning").glob("*/config.toml")}
    assert len(rates) == 8
    assert second.config.detector.learning_rate in rates


def test_a_trial_that_dies_costs_nothing_but_itself(tmp_path: Path) -> None:
    version, calls = version_of(tmp_path, {Split.TRAIN: 2, Split.VAL: 1}), []

    def dies_at_second(*given: Any) -> float:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return peak(*given)

    options = {"folder": tmp_path / "tuning", "config": TrainingConfig(), "trials": 3}
    with pytest.raises(KeyboardInterrupt):
        tuning.tune(version, "detector", score=dies_at_second, **options)
    found = tuning.tune(version, "detector", score=peak, **options)
    assert found.trials == 5
    assert math.isfinite(found.score)


def test_a_grid_walks_every_choice_once(tmp_path: Path) -> None:
    version = version_of(tmp_path, {Split.TRAIN: 2, Split.VAL: 1})
    space = {"mosaic": Range(choices=(0.0, 0.5)), "batch": Range(choices=(4, 8))}
    options = {"folder": tmp_path / "tuning", "config": TrainingConfig(), "trials": 3, "sampler": "grid"}
    for _ in range(2):
        tuning.tune(version, "detector", space=space, score=peak, **options)
    tried = [config.read(path).detector for path in (tmp_path / "tuning").glob("*/config.toml")]
    assert sorted((one.mosaic, one.batch) for one in tried)[:4] == sorted({(one.mosaic, one.batch) for one in tried})
