"""The package's README names every setting, command, route and module that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ml_backend import openapi
from ml_backend.cli import app
from ml_backend.settings import Settings

PACKAGE = Path(__file__).parents[2] / "ml_backend"
README = (PACKAGE / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_explained(name: str) -> None:
    assert f"`{name.upper()}`" in README


@pytest.mark.parametrize("command", app.registered_commands)
def test_every_command_is_shown(command: object) -> None:
    name = getattr(command, "name", None) or command.callback.__name__  # type: ignore[attr-defined]
    assert re.search(rf"^dermloop {name}\b", README, re.MULTILINE)


@pytest.mark.parametrize("module", sorted(path.stem for path in PACKAGE.glob("[a-z]*.py")))
def test_every_module_has_its_place(module: str) -> None:
    assert f"`{module}`" in README


@pytest.mark.parametrize("path", openapi.document()["paths"])
def test_every_public_path_is_named(path: str) -> None:
    assert path.replace("{key}", "<key>") in README
