"""The command itself: quick help, one clear sentence for an error, the traceback only where it is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = ("torch", "tensorflow", "keras", "ultralytics", "onnxruntime", "label_studio_sdk", "sqlalchemy", "flask", "PIL")


def dermloop(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dermloop", *arguments]
    environment = {**os.environ, "DERMLOOP_HOME": str(home), "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


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


def test_images_are_drawn_taken_in_and_registered_once(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "pictures"
    drawn = dermloop("demo", str(folder), "--count", "3", "--size", "64", "--json", home=home)
    assert json.loads(drawn.stdout)["images"] == 3
    first = json.loads(dermloop("ingest", str(folder), "--json", home=home).stdout)
    second = json.loads(dermloop("ingest", str(folder), "--json", home=home).stdout)
    assert (first["images"], first["stored"], first["registered"], first["skipped"]) == (3, 3, 3, [])
    assert (second["images"], second["stored"], second["registered"]) == (3, 0, 0)
    state = json.loads(dermloop("status", "--json", home=home).stdout)
    assert sum(state["images"].values()) == 3 and set(state["programs"].values()) == {None}


def test_strict_ingest_fails_where_something_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "broken.jpg").write_bytes(b"")
    answer = dermloop("ingest", str(tmp_path / "pictures"), "--strict", home=tmp_path / "home")
    assert answer.returncode == 1 and "1 entries left out" in answer.stderr
    assert "broken.jpg" in answer.stdout


@pytest.mark.parametrize("command", ["down", "status", "logs"])
def test_looking_at_a_home_that_does_not_exist_changes_nothing(tmp_path: Path, command: str) -> None:
    home = tmp_path / "home"
    assert dermloop(command, home=home).returncode == 0
    assert not home.exists()
