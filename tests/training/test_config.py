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


@pytest.mark.parametrize(
    ("table", "key", "value", "words"),
    [
        ("classifier", "schedule", "plataeu", "Did you mean 'plateau'"),
        ("classifier", "select_by", "balanced", "Did you mean 'balanced_accuracy'"),
        ("classifier", "class_weights", "equal", "balanced, square-root"),
        ("classifier", "coverage", 90, "0 to 1"),
        ("classifier", "epochs", 0, "1 to"),
        ("detector", "device", "gpu", "0,1 for two"),
        ("detector", "task", "boxes", "detect, segment"),
        ("detector", "learning_rate", -0.1, "0 to"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_what_can(table: str, key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refusal:
        config.decode({table: {key: value}}, "mine.toml")
    assert key in str(refusal.value)


@pytest.mark.parametrize("device", ["cpu", "mps", "0", "0,1", "cuda:0", "-1"])
def test_devices_are_written_as_ultralytics_reads_them(device: str) -> None:
    assert config.decode({"detector": {"device": device}}).detector.device == device
