"""A tuning study refuses what it cannot search before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders_training import version_of

from converters.dataset import Split
from training import config, tuning
from training.errors import ConfigError
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
