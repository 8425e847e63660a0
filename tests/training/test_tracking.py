"""An epoch's figures reach TensorBoard's files and a real MLflow store, and a store that dies costs no training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from training import runs, tracking
from training.config import TrackingConfig, TrainingConfig
from training.errors import TrackingError
from training.runs import Run, RunState


def config(address: str, tensorboard: bool = False) -> TrainingConfig:
    return TrainingConfig(name="mine", tracking=TrackingConfig(tensorboard, address, "skin"))


def started(folder: Path, address: str, tensorboard: bool = False) -> Run:
    return runs.start(folder / "runs", "detector", "abc", config(address, tensorboard))


@pytest.mark.filterwarnings("ignore:.*noload.*")
def test_a_run_and_its_resumed_half_are_one_mlflow_run_with_settings_and_figures(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = started(tmp_path, address)
    run.measure("detector", 1, {"loss": 3.0, "mAP50(B)": float("nan")})
    resumed, _ = runs.resume(run.folder)
    resumed.measure("detector", 2, {"loss": 2.0, "mAP50(B)": 0.5})
    resumed.finish()
    tracking.track_evaluation(run.folder, config(address), {"map50": 0.75, "recall.low": math.nan})
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("skin")
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.tags["dermloop.run"] == run.run_id
    assert (found.data.params["name"], found.data.params["detector.epochs"]) == ("mine", "24")
    assert found.data.metrics == {"detector/loss": 2.0, "detector/mAP50_B": 0.5, "test/map50": 0.75}
    history = client.get_metric_history(found.info.run_id, "detector/loss")
    assert [(row.step, row.value) for row in history] == [(1, 3.0), (2, 2.0)]


def test_a_store_out_of_reach_fails_the_run_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"under \[tracking\]"):
        started(tmp_path, "http://127.0.0.1:9")
    [folder] = (tmp_path / "runs").iterdir()
    assert runs.read_status(folder).state is RunState.FAILED


def test_a_store_that_dies_in_the_middle_is_told_and_the_training_goes_on(tmp_path: Path) -> None:
    run = started(tmp_path, "", tensorboard=True)
    (run.folder / "tensorboard").write_text("in the way")
    run.measure("detector", 1, {"loss": 2.0})
    assert "tracking goes on without one" in runs.read_status(run.folder).text
    run.measure("detector", 2, {"loss": 1.0})
    run.finish()


def test_every_process_that_works_on_a_run_writes_a_file_of_its_own(tmp_path: Path) -> None:
    run = started(tmp_path, "", tensorboard=True)
    run.measure("detector", 1, {"loss": 2.0})
    resumed, _ = runs.resume(run.folder)
    resumed.measure("detector", 2, {"loss": 1.0})
    assert len(list((run.folder / "tensorboard").glob("events.out.tfevents.*"))) == 2
