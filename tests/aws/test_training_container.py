"""The training container keeps SageMaker's contract: settings in, bundle out, reasons for failures, interruption."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from builders_serving import bundle
from builders_training import version_of
from builders_training_job import container, laid_out, tiny

from converters.dataset import DatasetVersion, Split
from ml_backend.bundle import champion_version, load_bundle
from training import sagemaker, tuning
from training.errors import ConfigError
from training.sagemaker import METRICS, Layout


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return version_of(tmp_path_factory.mktemp("data"), {Split.TRAIN: 12, Split.VAL: 6, Split.TEST: 2})


def test_hyper_parameters_overrule_the_file_in_the_settings_own_kinds(tmp_path: Path, version: DatasetVersion) -> None:
    given = {
        "stage": '"detector"',
        "epochs": "3",
        "learning_rate": "0.0005",
        "cosine": "false",
        "optimizer": '"SGD"',
        "_tuning_objective_metric": "validation:score",
        "sagemaker_region": "eu-central-1",
    }
    layout = Layout(laid_out(tmp_path, version, given, tiny()))
    stage, config = sagemaker.settings(layout, layout.hyperparameters())
    found = config.detector
    assert stage == "detector"
    assert (found.epochs, found.learning_rate, found.cosine, found.optimizer) == (3, 0.0005, False, "SGD")
    assert config.classifier == tiny().classifier and found.image_size == tiny().detector.image_size


def test_every_searched_setting_can_be_a_hyper_parameter(tmp_path: Path, version: DatasetVersion) -> None:
    for stage, space in tuning.SPACES.items():
        values = {name: str(one.choices[0] if one.choices else one.low) for name, one in space.items()}
        layout = Layout(laid_out(tmp_path / stage, version, {"stage": stage, **values}, tiny()))
        _, config = sagemaker.settings(layout, layout.hyperparameters())
        assert {name: str(getattr(getattr(config, stage), name)) for name in space}.keys() == values.keys()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stage": "both"}, "detector or classifier"),
        ({"stage": "detector", "momentum": "1"}, "a setting of the detector"),
        ({"stage": "detector", "epochs": "many"}, "a value like"),
    ],
)
def test_a_hyper_parameter_that_means_nothing_is_named(
    tmp_path: Path, version: DatasetVersion, given: dict[str, str], words: str
) -> None:
    layout = Layout(laid_out(tmp_path, version, given, tiny()))
    with pytest.raises(ConfigError, match=words):
        sagemaker.settings(layout, layout.hyperparameters())


def test_a_failure_is_left_where_sagemaker_looks_for_it(
    tmp_path: Path, version: DatasetVersion, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    laid_out(tmp_path, version, {"stage": "detector"}, tiny())
    (tmp_path / "input" / "data" / "dataset" / "manifest.jsonl").write_bytes(b"")
    monkeypatch.setenv(sagemaker.PREFIX_VARIABLE, str(tmp_path))
    assert sagemaker.main(["train"]) == 1
    reason = Layout(tmp_path).failure.read_text()
    assert "changed content" in reason and reason in capsys.readouterr().err
    assert sagemaker.main(["serve"]) == 1
    assert "Use the serving image" in Layout(tmp_path).failure.read_text()


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")  # torch and tensorflow warn about each other's age
def test_an_interrupted_job_goes_on_in_the_next_container_and_leaves_a_models_folder_that_serves(
    tmp_path: Path, version: DatasetVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    champion = bundle(tmp_path / "home")
    root = laid_out(tmp_path / "ml", version, {"stage": "detector"}, tiny(epochs=40))
    (root / "input" / "data" / "champion").mkdir()
    (tmp_path / "home" / "models").rename(root / "input" / "data" / "champion" / "models")
    reached = interrupted(root, after=2)
    out = finished(root, reached + 1, capsys)
    epochs = [int(number) for number in re.findall(METRICS["epoch"], out) if number != "0"]
    assert (min(epochs), max(epochs)) == (reached + 1, reached + 1)
    assert [float(value) for value in re.findall(METRICS["loss"], out)]
    result = json.loads((root / "output" / "data" / "result.json").read_text())
    models = root / "model"
    assert champion_version(models) == result["version"] != champion.version
    assert sorted(path.name for path in models.iterdir()) == sorted(["champion.json", result["version"]])
    written = load_bundle(models / result["version"])
    assert written.classifier == champion.classifier and written.lineage["parent"] == champion.version
    assert (root / "output" / "data" / "runs" / result["run"] / "detector.pt").is_file()


@pytest.mark.train
@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_a_trial_says_its_score_where_the_tuning_job_looks_for_it(
    tmp_path: Path, version: DatasetVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    root = laid_out(tmp_path, version, {"stage": "classifier", "task": "tune"}, tiny(epochs=60))
    reached = interrupted(root, after=2)
    out = finished(root, reached + 1, capsys)
    (score,) = re.findall(METRICS["validation:score"], out)
    told = json.loads((root / "output" / "data" / "result.json").read_text())["score"]
    assert float(score) == pytest.approx(told, abs=1e-5)


def interrupted(root: Path, after: int) -> int:
    """The last epoch of a job that got SIGTERM once so many were done."""
    with container(root) as job:
        assert job.stdout is not None
        seen = ""
        for line in job.stdout:
            seen += line
            if re.search(rf"progress: \w+ {after}/", line):
                job.send_signal(signal.SIGTERM)
                break
        rest, err = job.communicate(timeout=300)
    assert job.returncode == 143, err
    assert "goes on from the last checkpoint" in rest and not (root / "output" / "failure").exists()
    return max(int(number) for number in re.findall(METRICS["epoch"], seen + rest))


def finished(root: Path, epochs: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What a job printed that was started again, here in this process, with one more epoch to go."""
    (run,) = (root / "checkpoints").glob("*/config.toml")
    run.write_text(run.read_text().replace("epochs = ", f"epochs = {epochs}  # "))
    for path in (root / "checkpoints").glob("*/detector/weights/last.pt"):
        shorten(path, epochs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sagemaker.PREFIX_VARIABLE, str(root))
        status = sagemaker.main(["train"])
    told = capsys.readouterr()
    assert status == 0, told.err
    return told.out


def shorten(checkpoint: Path, epochs: int) -> None:
    """Has ultralytics resume towards fewer epochs than it began with."""
    import torch

    found = torch.load(checkpoint, map_location="cpu", weights_only=False)
    found["train_args"]["epochs"] = epochs
    torch.save(found, checkpoint)
