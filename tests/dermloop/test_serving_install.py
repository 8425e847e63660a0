"""A serving install in an environment of its own: no torch, no tensorflow, and it starts and answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dermloop.stack import free_ports

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
UNWANTED = ("torch", "torchvision", "ultralytics", "tensorflow", "keras", "tf2onnx")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of a fresh environment with the base install from a copy of the sources."""
    place = tmp_path_factory.mktemp("serving")
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    assert uv, "make install brings uv"
    sources = place / "sources"
    kept = shutil.ignore_patterns(".*", "*.egg-info", "build", "tests", "benchmarks", "__pycache__")
    shutil.copytree(ROOT, sources, ignore=kept)
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(place / "env")], check=True)
    made = place / "env" / "bin" / "python"
    pins = ["-c", str(ROOT / "constraints.txt"), "--override", str(ROOT / "overrides.txt")]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(made), *pins, str(sources)], check=True)
    yield made
    shutil.rmtree(place, ignore_errors=True)


def test_neither_torch_nor_tensorflow_is_there(python: Path) -> None:
    code = f"import importlib.util as u; print([name for name in {UNWANTED!r} if u.find_spec(name)])"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd=python.parent)
    assert found.stdout.strip() == "[]"


def test_the_command_works_and_brings_its_own_files(python: Path, tmp_path: Path) -> None:
    command = python.with_name("dermloop")
    run = subprocess.run(
        [command, "demo", str(tmp_path / "pictures"), "--count", "2", "--size", "64"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "pictures" / "metadata.csv").is_file()


def test_training_answers_with_the_install_line(python: Path, tmp_path: Path) -> None:
    code = "from dermloop.first_bundle import make; from dermloop.home import Home; from pathlib import Path;"
    code += "make(Home(Path('home')), print)"
    environment = {**os.environ, "DERMLOOP_CACHE": str(tmp_path / "cache")}
    run = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert run.returncode == 1
    assert "dermloop[train]" in run.stderr


def test_the_backend_starts_and_answers(python: Path, tmp_path: Path) -> None:
    port = free_ports().backend
    environment = {**os.environ, "DERMLOOP_ML_HOME": str(tmp_path), "DERMLOOP_ML_PORT": str(port)}
    with subprocess.Popen([python.with_name("dermloop"), "serve"], env=environment, cwd=tmp_path) as server:
        try:
            assert _answers(f"http://127.0.0.1:{port}/health", server)
        finally:
            server.terminate()


def _answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=3) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.2)
    return False
