"""`dermloop train … --on sagemaker` submits, follows, resumes and collects; `tune` does the same for a tuning job."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders_aws import BUCKET, IMAGE, moto, reset, signed_in, stack
from builders_environment import kept_environment
from builders_sagemaker import SmallSagemaker, serving
from builders_serving import bundle
from builders_training import version_of
from builders_training_job import container as started
from builders_training_job import tiny
from typer.testing import CliRunner

from converters import dataset
from converters.dataset import DatasetVersion, Split
from dermloop.aws import deploy as work
from dermloop.aws.clients import Aws, forget_clients
from dermloop.cli import app
from dermloop.errors import AwsError, RemoteJobError
from ml_backend import bundle as bundles
from ml_backend.bundle import champion_version, load_bundle
from training import config as configs
from training import sagemaker, tuning
from training.errors import ConfigError
from training.remote import RemoteRegistry

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")  # moto leaves out what it cannot make


def quick(root: Path) -> tuple[int, list[str]]:
    """A container that learns nothing: it reads its settings as the real one does and writes a drawn bundle."""
    layout = sagemaker.Layout(root)
    stage, config = sagemaker.settings(layout, layout.hyperparameters())
    version = dataset.load(layout.channel("dataset"))
    lines = [f"dermloop progress: {stage} {n}/2 loss 0.{n}" for n in (1, 2)]
    result: dict[str, object] = {"run": "run-1", "dataset": version.digest}
    if layout.hyperparameters()["task"] == "tune":
        lines.append(f"dermloop validation score: {getattr(config, stage).learning_rate:.6f}")
    else:
        written = bundle(root, name="remote")
        (root / "models").rename(root / "model-made")
        for path in (root / "model-made").iterdir():
            path.rename(root / "model" / path.name)
        result["version"] = written.version
        (root / "output" / "data" / "runs" / "run-1").mkdir(parents=True)
        (root / "output" / "data" / "runs" / "run-1" / "detector.pt").write_bytes(b"weights")
    (root / "output" / "data" / "result.json").write_text(json.dumps(result))
    return 0, lines


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Moto with a deployed stack, which the tests below only add to."""
    with moto() as address:
        reset(address)
        with signed_in(address):
            work.deploy(Aws(), stack(), {"FunctionImage": IMAGE, "TrainingImage": f"{IMAGE}-training"})
        yield address


@pytest.fixture
def small(server: str, tmp_path: Path) -> Iterator[SmallSagemaker]:
    with signed_in(server):
        found = SmallSagemaker(tmp_path / "sagemaker", quick)
        with (
            serving(found) as address,
            signed_in(server, AWS_ENDPOINT_URL_SAGEMAKER=address, AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=address),
        ):
            yield found
        forget_clients()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    made = version_of(tmp_path / "data", {Split.TRAIN: 4, Split.VAL: 2})
    (place / "datasets").mkdir(parents=True)
    made.root.rename(place / "datasets" / made.root.name)
    (place / "config.toml").write_text(configs.encode(tiny()))
    return place


def run(home: Path, *words: str, status: int = 0) -> dict[str, object]:
    options = ["--home", str(home), "--config", str(home / "config.toml"), "--on", "sagemaker", "--json"]
    with kept_environment():
        found = CliRunner().invoke(app, [*words, *options], catch_exceptions=False)
    assert found.exit_code == status, found.output
    return dict(json.loads(found.stdout.splitlines()[-1]))


def only_version(home: Path) -> DatasetVersion:
    (version,) = dataset.versions(home / "datasets")
    return version


def test_a_training_job_is_submitted_followed_and_collected(small: SmallSagemaker, home: Path) -> None:
    done = run(home, "train", "detector")
    written = load_bundle(home / "models" / str(done["version"]))
    assert written.name == "remote" and champion_version(home / "models") is None
    assert (home / "runs" / "run-1" / "detector.pt").read_bytes() == b"weights"
    (job,) = small.jobs.values()
    assert job["EnableManagedSpotTraining"] is True
    assert job["CheckpointConfig"]["S3Uri"].startswith(f"s3://{BUCKET}/runs/checkpoints/")
    assert job["StoppingCondition"]["MaxWaitTimeInSeconds"] >= job["StoppingCondition"]["MaxRuntimeInSeconds"]
    assert job["AlgorithmSpecification"]["TrainingImage"] == f"{IMAGE}-training"
    assert job["HyperParameters"] == {"stage": "detector", "task": "train"}
    assert [row["ChannelName"] for row in job["InputDataConfig"]] == ["dataset", "config"]
    assert ":role/dermloop-TrainingRole-" in job["RoleArn"]
    shared, version = RemoteRegistry(f"s3://{BUCKET}"), only_version(home)
    assert shared.push_dataset(version) == 0
    assert shared.pull_dataset(version.root.name, home / "fetched").digest == version.digest


def test_the_champion_travels_with_the_job_to_be_paired_and_warm_started_from(
    small: SmallSagemaker, home: Path
) -> None:
    champion = bundle(home)
    seen: list[str | None] = []

    def container(root: Path) -> tuple[int, list[str]]:
        seen.append(bundles.champion_version(root / "input" / "data" / "champion" / "models"))
        return quick(root)

    small.container = container
    run(home, "train", "detector")
    assert seen == [champion.version] and champion_version(home / "models") == champion.version


def test_an_interrupted_job_is_started_again_from_its_own_checkpoints(small: SmallSagemaker, home: Path) -> None:
    def interrupted(root: Path) -> tuple[int, list[str]]:
        (root / "checkpoints" / "epoch-7").write_text("there")
        return 143, []

    small.container = interrupted
    with pytest.raises(RemoteJobError, match=r"Stopped.*--resume dermloop-detector-"):
        run(home, "train", "detector")
    (name,) = small.jobs
    found: list[str] = []

    def container(root: Path) -> tuple[int, list[str]]:
        found.extend(path.name for path in (root / "checkpoints").iterdir())
        return quick(root)

    small.container = container
    done = run(home, "train", "detector", "--resume", name)
    assert found == ["epoch-7"] and len(small.jobs) == 2
    again = run(home, "train", "detector", "--resume", list(small.jobs)[-1])
    assert again["version"] == done["version"] and len(small.jobs) == 2


def test_a_job_that_failed_says_its_own_reason_and_how_to_go_on(small: SmallSagemaker, home: Path) -> None:
    def failing(root: Path) -> tuple[int, list[str]]:
        (root / "output" / "failure").write_text("validation crops: got 0; expected one or more.")
        return 1, []

    small.container = failing
    with pytest.raises(RemoteJobError, match=r"validation crops: got 0.*Correct it and go on with"):
        run(home, "train", "classifier")
    assert not (home / "models").exists()


def test_an_archive_that_was_tampered_with_brings_nothing_into_the_home(small: SmallSagemaker, home: Path) -> None:
    def container(root: Path) -> tuple[int, list[str]]:
        answer = quick(root)
        next((root / "model").glob("*/detector.onnx")).write_bytes(b"something else")
        return answer

    small.container = container
    with pytest.raises(bundles.BundleError, match="Restore the file"):
        run(home, "train", "detector")
    assert not (home / "models").exists() and not (home / "runs").exists()


def test_a_tuning_job_searches_the_same_space_and_brings_back_the_best_settings(
    small: SmallSagemaker, home: Path
) -> None:
    out = home / "best.toml"
    done = run(home, "tune", "classifier", "--trials", "3", "--out", str(out))
    (job,) = small.jobs.values()
    plan = job["HyperParameterTuningJobConfig"]
    assert plan["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 3
    names = {row["Name"] for rows in plan["ParameterRanges"].values() for row in rows}
    assert names == set(tuning.SPACES["classifier"])
    best = configs.read(out).classifier
    assert best.learning_rate == tuning.SPACES["classifier"]["learning_rate"].low == done["score"]
    assert best.batch == tuning.SPACES["classifier"]["batch"].choices[0]
    metrics = {
        row["Name"]: row["Regex"] for row in job["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]
    }
    assert metrics == dict(sagemaker.METRICS)


def test_a_grid_has_choices_only(small: SmallSagemaker, home: Path) -> None:
    run(home, "tune", "detector", "--grid")
    (job,) = small.jobs.values()
    plan = job["HyperParameterTuningJobConfig"]
    assert (plan["Strategy"], plan["ParameterRanges"]["ContinuousParameterRanges"]) == ("Grid", [])


def test_a_place_that_nobody_offers_and_a_job_that_is_not_there_are_named(small: SmallSagemaker, home: Path) -> None:
    with pytest.raises(ConfigError, match="local, sagemaker"):
        CliRunner().invoke(app, ["train", "detector", "--home", str(home), "--on", "mars"], catch_exceptions=False)
    with pytest.raises(RemoteJobError, match="list-training-jobs"):
        run(home, "train", "detector", "--resume", "gone")


def test_a_stack_without_a_training_image_says_how_to_get_one(server: str, home: Path) -> None:
    cure = r"Build docker/sagemaker/train\.Dockerfile"
    with signed_in(server, DERMLOOP_AWS_STACK="other"), pytest.raises(AwsError, match=cure):
        run(home, "train", "detector")


@pytest.mark.train
@pytest.mark.soak
def test_a_real_training_goes_all_the_way_through_the_contract(small: SmallSagemaker, home: Path) -> None:
    def container(root: Path) -> tuple[int, list[str]]:
        with started(root) as job:
            out, err = job.communicate(timeout=600)
        assert job.returncode == 0, err
        return job.returncode, out.splitlines()

    small.container = container
    done = run(home, "train", "detector")
    written = load_bundle(home / "models" / str(done["version"]))
    assert written.lineage["dataset"] == only_version(home).digest
    assert re.search(sagemaker.METRICS["loss"], "\n".join(small.lines[next(iter(small.jobs))]))
