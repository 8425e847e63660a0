"""A frozen version under DVC: added as it lies, pushed, lost, pulled back and found whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders_training import version_of

from converters import dataset
from converters.dataset import Split

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def dvc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DVC in an environment of its own: its pins and ours need not go together."""
    folder = tmp_path_factory.mktemp("dvc") / "env"
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    assert uv is not None
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "dvc"], check=True)
    return folder / "bin" / "dvc"


def test_a_frozen_version_comes_back_from_dvc_as_it_was(dvc: Path, tmp_path: Path) -> None:
    version = version_of(tmp_path, {Split.TRAIN: 4, Split.VAL: 2, Split.TEST: 2})
    place = version.root.relative_to(tmp_path)

    def run(*words: str) -> None:
        environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
        subprocess.run([str(dvc), *words], cwd=tmp_path, env=environment, check=True, capture_output=True)

    run("init", "--no-scm")
    run("remote", "add", "-d", "store", str(tmp_path / "store"))
    run("add", str(place))
    run("push")
    shutil.rmtree(version.root)
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    run("pull", f"{place}.dvc")
    found = dataset.load(version.root)
    found.verify()
    assert found.digest == version.digest
