"""The settings of a retraining: the home's own, and the registry that the environment names."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermloop.home import Home
from dermloop.retraining import CONFIG_FILE, REGISTRY, read_config


def test_a_promotion_goes_to_the_registry_that_the_home_or_else_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    monkeypatch.delenv(REGISTRY, raising=False)
    assert read_config(home).registry == ""
    monkeypatch.setenv(REGISTRY, "s3://models/clinic")
    assert read_config(home).registry == "s3://models/clinic"
    (tmp_path / CONFIG_FILE).write_text('registry = "s3://models/own"\n', encoding="utf-8")
    assert read_config(home).registry == "s3://models/own"
