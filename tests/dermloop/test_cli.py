"""The command itself: quick help, one clear sentence for an error, the traceback only where it is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders_environment import own_environment
from click.testing import Result
from typer.testing import CliRunner

from dermloop.cli import app
from dermloop.home import Home
from dermloop.stack import BACKEND, LABEL_STUDIO, REVIEW
from dermloop.stack.environment import adopt
from dermloop.stack.secrets import open_secrets

Inside = Callable[..., Result]
HEAVY = ("torch", "tensorflow", "keras", "ultralytics", "onnxruntime", "label_studio_sdk", "sqlalchemy", "flask", "PIL")


def dermloop(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dermloop", *arguments]
    environment = {**os.environ, "DERMLOOP_HOME": str(home), "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home that the environment names."""
    with own_environment(DERMLOOP_HOME=str(tmp_path / "home")):
        yield Home.at()


@pytest.fixture
def inside(home: Home) -> Inside:
    """Runs a command in this process; an error of ours stays in `exception`."""
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_help_names_every_command_and_imports_nothing_heavy(tmp_path: Path) -> None:
    answer = dermloop("--help", home=tmp_path)
    assert answer.returncode == 0
    listed = {line.split()[0] for line in answer.stdout.partition("Commands:")[2].splitlines() if line.strip()}
    assert {"up", "down", "status", "logs", "ingest", "demo", "loop", "freeze", "worker", "review", "train"} <= listed
    code = f"import sys, dermloop.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_comes_at_once(tmp_path: Path) -> None:
    began = time.process_time(), os.times().children_user
    dermloop("--help", home=tmp_path)
    assert os.times().children_user - began[1] < 1.0


def test_version_names_the_distribution(tmp_path: Path) -> None:
    assert dermloop("--version", home=tmp_path).stdout.startswith("dermloop 0.")


def test_an_error_is_one_sentence_and_exit_status_one(tmp_path: Path) -> None:
    answer = dermloop("ingest", str(tmp_path / "nowhere"), home=tmp_path / "home")
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr.strip().splitlines() == [
        f"{tmp_path / 'nowhere'}: no folder; expected a folder of JPEG or PNG files. Name another one with --images."
    ]


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    answer = dermloop("--debug", "ingest", str(tmp_path / "nowhere"), home=tmp_path / "home")
    assert answer.returncode == 1 and "Traceback" in answer.stderr


def test_images_are_drawn_taken_in_and_registered_once(tmp_path: Path, inside: Inside) -> None:
    folder = tmp_path / "pictures"
    drawn = inside("demo", str(folder), "--count", "3", "--size", "64", "--json")
    assert json.loads(drawn.stdout)["images"] == 3
    first = json.loads(inside("ingest", str(folder), "--json").stdout)
    second = json.loads(inside("ingest", str(folder), "--json").stdout)
    assert (first["images"], first["stored"], first["registered"], first["skipped"]) == (3, 3, 3, [])
    assert (second["images"], second["stored"], second["registered"]) == (3, 0, 0)
    state = json.loads(inside("status", "--json").stdout)
    assert sum(state["images"].values()) == 3 and set(state["programs"].values()) == {None}


def test_strict_ingest_fails_where_something_was_left_out(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "broken.jpg").write_bytes(b"")
    answer = inside("ingest", str(tmp_path / "pictures"), "--strict")
    assert "1 entries left out" in str(answer.exception)
    assert "broken.jpg" in answer.stdout


def test_a_log_that_does_not_exist_is_named_with_those_that_do(home: Home, inside: Inside) -> None:
    home.create()
    (home.logs / "review.log").write_text("first\nlast\n", encoding="utf-8")
    assert inside("logs", "review", "--lines", "1").stdout.splitlines()[1:] == ["  last"]
    assert "one of review" in str(inside("logs", "reviw").exception)


def test_every_package_finds_the_home_and_its_secrets_unless_told_otherwise(home: Home) -> None:
    os.environ["DERMLOOP_ML_LABEL_STUDIO_URL"] = "http://elsewhere:1"
    secrets = open_secrets(home.secrets)
    home.ready_file.write_text(
        json.dumps({name: f"http://127.0.0.1:{18300 + i}" for i, name in enumerate((LABEL_STUDIO, BACKEND, REVIEW))}),
        encoding="utf-8",
    )
    adopt(home)
    assert os.environ["DERMLOOP_ML_LABEL_STUDIO_URL"] == "http://elsewhere:1"
    assert os.environ["DERMLOOP_REVIEW_LABEL_STUDIO_URL"] == "http://127.0.0.1:18300"
    assert os.environ["DERMLOOP_REVIEW_LABEL_STUDIO_TOKEN"] == secrets.admin.token
    assert os.environ["DERMLOOP_REVIEW_HOME"] == os.environ["DERMLOOP_ML_HOME"] == str(home.root)


@pytest.mark.parametrize("command", ["down", "status", "logs"])
def test_looking_at_a_home_that_does_not_exist_changes_nothing(home: Home, inside: Inside, command: str) -> None:
    assert inside(command).exit_code == 0
    assert not home.root.exists()
