"""Settings: every default visible, unknown keys refused with the likely spelling."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from converters.taxonomy import Target
from training import config
from training.config import ClassifierConfig, TrainingConfig
from training.errors import ConfigError


def test_every_default_is_written_out_and_read_back_equal() -> None:
    text = config.encode(TrainingConfig())
    raw = tomllib.loads(text)
    assert set(raw["detector"]) == set(config.DetectorConfig.__dataclass_fields__)
    assert config.decode(raw) == TrainingConfig()


def test_a_misspelt_key_names_itself_and_the_likely_spelling() -> None:
    with pytest.raises(ConfigError, match=r"'epoch'.*Did you mean 'epochs'"):
        config.decode({"detector": {"epoch": 3}})


def test_a_value_of_another_type_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"epochs.*type int"):
        config.decode({"detector": {"epochs": "many"}})
    with pytest.raises(ConfigError, match="a table"):
        config.decode({"detector": 3})
    with pytest.raises(ConfigError, match="target"):
        config.decode({"classifier": {"target": "colour"}})


def test_values_of_a_file_lie_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[classifier]\ntarget = "diagnosis"\nlearning_rate = 1\n')
    expected = ClassifierConfig(target=Target.DIAGNOSIS, learning_rate=1.0)
    assert config.read(path) == TrainingConfig(classifier=expected)


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="readable TOML"):
        config.read(tmp_path / "none.toml")


@pytest.mark.parametrize("name", sorted(path.stem for path in config.RECIPES.glob("*.toml")))
def test_the_shipped_recipes_are_valid(name: str) -> None:
    assert isinstance(config.recipe(name), TrainingConfig)


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="first"):
        config.recipe("fist")
