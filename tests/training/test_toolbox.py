"""A tool that is missing or fails is named with its cure, and half a tool never stays in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import toolbox
from training.errors import ToolError
from training.toolbox import Package

PACKAGE = Package("some-package", "1.0.0", ("dist/one.js",))


def test_without_npm_or_a_browser_the_cure_is_their_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="apt-get install npm"):
        toolbox.npm_files(PACKAGE, tmp_path / "tools")
    with pytest.raises(ToolError, match="apt-get install chromium"):
        toolbox.chromium()


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_registry_that_fails_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "npm", "echo 'E404 Not Found' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ToolError, match=r"some-package@1\.0\.0.*E404 Not Found"):
        toolbox.npm_files(PACKAGE, tmp_path / "tools")
    assert not [path for path in (tmp_path / "tools").rglob("*") if path.is_file()]


def test_what_is_in_the_cache_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tools" / "some-package-1.0.0"
    folder.mkdir(parents=True)
    (folder / "one.js").write_text("1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert toolbox.npm_files(PACKAGE, tmp_path / "tools") == (folder / "one.js",)


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMLOOP_CACHE", str(tmp_path))
    assert toolbox.tools_folder() == tmp_path / "tools"
