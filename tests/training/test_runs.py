"""A run folder tells what happened, also after its process was killed."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import orjson
import pytest

from training import runs
from training.config import TrainingConfig
from training.errors import RunError
from training.runs import RunState


def killed(folder: Path) -> None:
    status = replace(runs.read_status(folder), pid=2**22 - 7)
    (folder / runs.STATUS).write_bytes(orjson.dumps(asdict(status)))


def test_a_run_reports_to_its_status_file_and_to_its_watcher(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int, str]] = []
    run = runs.start(tmp_path, "detector", "abc", TrainingConfig(), lambda *word: seen.append(word))
    run.report("detector", 1, 5, "loss 3.0")
    status = runs.read_status(run.folder)
    assert (status.state, status.done, status.total, status.text) == (RunState.RUNNING, 1, 5, "detector: loss 3.0")
    assert seen == [("detector", 1, 5, "loss 3.0")]
    run.finish()
    assert runs.read_status(run.folder).state is RunState.DONE
    assert list(runs.unfinished(tmp_path)) == []


def test_two_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    folders = {runs.start(tmp_path, "detector", "abc", TrainingConfig()).folder for _ in range(3)}
    assert len(folders) == 3


def test_a_killed_run_is_listed_and_resumed_with_its_own_settings(tmp_path: Path) -> None:
    config = TrainingConfig(name="mine")
    run = runs.start(tmp_path, "detector", "abc", config)
    killed(run.folder)
    assert [status.run for status in runs.unfinished(tmp_path)] == [run.run_id]
    resumed, settings = runs.resume(run.folder)
    assert settings == config
    assert runs.read_status(resumed.folder).pid == os.getpid()


def test_a_finished_run_is_not_resumed(tmp_path: Path) -> None:
    run = runs.start(tmp_path, "detector", "abc", TrainingConfig())
    run.finish()
    with pytest.raises(RunError, match="unfinished"):
        runs.resume(run.folder)


def test_a_run_that_still_goes_on_is_not_resumed(tmp_path: Path) -> None:
    run = runs.start(tmp_path, "detector", "abc", TrainingConfig())
    status = replace(runs.read_status(run.folder), pid=1)
    (run.folder / runs.STATUS).write_bytes(orjson.dumps(asdict(status)))
    with pytest.raises(RunError, match="process 1"):
        runs.resume(run.folder)


def test_a_failure_is_told(tmp_path: Path) -> None:
    run = runs.start(tmp_path, "detector", "abc", TrainingConfig())
    run.fail("disk full")
    assert runs.read_status(run.folder).text == "disk full"


def test_a_folder_without_status_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"status\.json"):
        runs.read_status(tmp_path)


def test_what_goes_wrong_is_noted_and_a_disk_in_a_sentence(tmp_path: Path) -> None:
    run = runs.start(tmp_path, "detector", "abc", TrainingConfig())
    with pytest.raises(ZeroDivisionError), run.failing():
        raise ZeroDivisionError("by zero")
    assert runs.read_status(run.folder).text == "by zero"
    with pytest.raises(RunError, match=f"--resume {run.run_id}"), run.failing():
        raise OSError(28, "No space left on device")
    with pytest.raises(RunError, match="Restore the file"), run.failing():
        raise FileNotFoundError(2, "No such file or directory", "weights.npz")
    with pytest.raises(RunError, match="room and rights"), run.failing():
        raise RuntimeError("PytorchStreamWriter failed writing file data/7")
    with run.failing():
        run.finish()


def test_an_interruption_is_noted_with_the_way_to_go_on(tmp_path: Path) -> None:
    run = runs.start(tmp_path, "detector", "abc", TrainingConfig())
    with pytest.raises(KeyboardInterrupt, match=f"Go on with --resume {run.run_id}"), run.failing():
        raise KeyboardInterrupt
    assert runs.read_status(run.folder).text == f"interrupted; go on with --resume {run.run_id}"
    with pytest.raises(KeyboardInterrupt, match="The study goes on"), run.failing("the study goes on"):
        raise KeyboardInterrupt


def test_a_run_is_taken_up_as_what_it_was_and_on_what_it_learnt_from(tmp_path: Path) -> None:
    status = runs.start(tmp_path, "detector", "abc", TrainingConfig()).status
    runs.require_same(status, "detector", "abc")
    with pytest.raises(RunError, match=r"kind detector.*kind classifier"):
        runs.require_same(status, "classifier", "abc")
    with pytest.raises(RunError, match=r"dataset def.*dataset abc, that it began with"):
        runs.require_same(status, "detector", "def")
