"""Training and tuning as SageMaker jobs: submitted, followed and collected; spot capacity with checkpoints."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from converters import storage
from converters.dataset import DatasetVersion
from dermloop.aws.archives import collect
from dermloop.aws.clients import Aws, told
from dermloop.aws.job_logs import JobLog
from dermloop.aws.ranges import parameter_ranges
from dermloop.aws.settings import AwsSettings
from dermloop.aws.stack import StackView
from dermloop.errors import AwsError, RemoteJobError
from ml_backend import bundle as bundles
from training import classifier, detector, registry, runs, sagemaker
from training import config as configs
from training.remote import RemoteRegistry
from training.runs import Progress
from training.targets import Trained, TrainOrder, TuneOrder
from training.tuning import Tuned

_GOING, _DONE = ("InProgress", "Stopping"), "Completed"
_IMAGE_CURE = "Build docker/sagemaker/train.Dockerfile, push it, and `dermloop aws deploy --set TrainingImage=ADDRESS`."
_CHECKPOINTS = (detector.CHECKPOINT, classifier.CHECKPOINT)


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs of a stack run and keep their things."""

    bucket: str
    role: str
    image: str

    @classmethod
    def of(cls, view: StackView) -> Place:
        """The place of a deployed stack; raises AwsError where it has no training image."""
        image = view.output("TrainingImage", _IMAGE_CURE)
        return cls(view.output("Bucket"), view.output("TrainingRoleArn"), image)

    def address(self, *parts: str) -> str:
        """An address in the bucket."""
        return "/".join((f"s3://{self.bucket}", *parts))


class SagemakerTarget:
    """Jobs on SageMaker, in the bucket and under the role of a stack."""

    def __init__(
        self, aws: Aws, view: Callable[[], StackView], settings: AwsSettings, say: Callable[[str], None]
    ) -> None:
        self._aws = aws
        self._view = view
        self._settings = settings
        self._say = say

    def train(self, order: TrainOrder, progress: Progress) -> Trained:
        """The bundle of a training job, in the home's models; raises RemoteJobError where the job did not end well.

        A job that `resume` names is followed where it runs, collected where it is done, and started again from its
        checkpoints where it was interrupted.
        """
        place = Place.of(self._view())
        name = self._resumed(order.resume) if order.resume else self._submit(order, place)
        with self._leaving(name):
            job = self._follow(name, progress)
        return collect(job["ModelArtifacts"]["S3ModelArtifacts"].rpartition("/")[0], order.home)

    def tune(self, order: TuneOrder, progress: Progress) -> Tuned:
        """The best settings of a tuning job; raises RemoteJobError where no trial of it ended well."""
        place = Place.of(self._view())
        name = order.resume or self._submit_tuning(order, place)
        with self._leaving(name):
            job = self._follow_tuning(name, progress)
        best = job.get("BestTrainingJob")
        if not best or "FinalHyperParameterTuningJobObjectiveMetric" not in best:
            reason = job.get("FailureReason") or "no trial reported a score"
            raise RemoteJobError(f"tuning job {name}", reason, "at least one good trial", "Look at its log.")
        config = sagemaker.overruled(order.config, order.stage, best["TunedHyperParameters"])
        score = float(best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])
        return Tuned(config, score, _ended(job), name)

    @property
    def _jobs(self) -> Any:
        return self._aws.client("sagemaker")

    def _submit(self, order: TrainOrder, place: Place) -> str:
        name = _name(order.stage, order.version)
        inputs = self._inputs(place, name, order)
        given = {sagemaker.STAGE: order.stage, sagemaker.TASK: "train"}
        self._say(f"Training job {name} on {self._settings.training_instance}.")
        self._create(
            {
                "TrainingJobName": name,
                "HyperParameters": given,
                "OutputDataConfig": {"S3OutputPath": place.address("runs", "jobs", name, "output")},
                "CheckpointConfig": {"S3Uri": place.address("runs", "checkpoints", name)},
                **self._definition(place, inputs),
            }
        )
        return name

    def _resumed(self, name: str) -> str:
        """The job to follow: the named one, or one started again from its checkpoints where it was interrupted."""
        job = self._described(name)
        if job["TrainingJobStatus"] in (*_GOING, _DONE):
            return name
        again = f"{name[:50]}-{datetime.now(UTC):%H%M%S}"
        self._say(f"{name} {job['TrainingJobStatus'].lower()}; {again} goes on from its checkpoints.")
        kept = ("AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig", "ResourceConfig",
                "StoppingCondition", "EnableManagedSpotTraining", "CheckpointConfig", "HyperParameters")  # fmt: skip
        self._create({"TrainingJobName": again, **{part: job[part] for part in kept if part in job}})
        return again

    def _create(self, request: Mapping[str, Any]) -> None:
        with told(f"training job {request['TrainingJobName']}"):
            self._jobs.create_training_job(**request)

    def _submit_tuning(self, order: TuneOrder, place: Place) -> str:
        name = f"dermloop-{order.stage[:3]}-{datetime.now(UTC):%y%m%d-%H%M%S}-{token_hex(2)}"  # of 32 characters
        plain = TrainOrder(order.stage, order.version, order.home, order.config)
        inputs = self._inputs(place, name, plain)
        limits = {"MaxParallelTrainingJobs": self._settings.tuning_parallel}
        if not order.grid:
            limits["MaxNumberOfTrainingJobs"] = order.trials
        self._say(f"Tuning job {name}: {'every choice' if order.grid else f'{order.trials} trials'}.")
        with told(f"tuning job {name}"):
            self._jobs.create_hyper_parameter_tuning_job(
                HyperParameterTuningJobName=name,
                HyperParameterTuningJobConfig={
                    "Strategy": "Grid" if order.grid else "Bayesian",
                    "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": sagemaker.SCORE},
                    "ResourceLimits": limits,
                    "ParameterRanges": parameter_ranges(order.stage, order.grid),
                },
                TrainingJobDefinition={
                    "StaticHyperParameters": {sagemaker.STAGE: order.stage, sagemaker.TASK: "tune"},
                    "OutputDataConfig": {"S3OutputPath": place.address("runs", "jobs", name, "output")},
                    "CheckpointConfig": {"S3Uri": place.address("runs", "checkpoints", name)},
                    **self._definition(place, inputs),
                },
            )
        return name

    def _definition(self, place: Place, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        own, seconds = self._settings, int(self._settings.training_hours * 3600)
        waits = {"MaxWaitTimeInSeconds": max(int(own.spot_wait_hours * 3600), seconds)} if own.spot else {}
        return {
            "AlgorithmSpecification": {
                "TrainingImage": place.image,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": name, "Regex": regex} for name, regex in sagemaker.METRICS.items()],
            },
            "RoleArn": place.role,
            "InputDataConfig": inputs,
            "ResourceConfig": {
                "InstanceType": own.training_instance,
                "InstanceCount": 1,
                "VolumeSizeInGB": own.training_volume_gb,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": seconds, **waits},
            "EnableManagedSpotTraining": own.spot,
        }

    def _inputs(self, place: Place, name: str, order: TrainOrder) -> list[dict[str, Any]]:
        """The job's channels, each put into the bucket; a dataset that is there already is not sent again."""
        dataset = place.address("datasets", order.version.root.name)
        sent = RemoteRegistry(place.address()).push_dataset(order.version)
        self._say(f"Dataset {order.version.root.name}: {sent} files sent.")
        own = place.address("runs", "jobs", name, "input")
        with tempfile.TemporaryDirectory() as draft:
            channels = _write_inputs(Path(draft), order)
            for channel in channels:
                storage.put(Path(draft) / channel, f"{own}/{channel}")
        return [_channel(sagemaker.DATASET, dataset), *(_channel(one, f"{own}/{one}") for one in channels)]

    def _follow(self, name: str, progress: Progress) -> Mapping[str, Any]:
        """The finished job; what it prints is told meanwhile."""
        log, seen = JobLog(self._aws, name), ""
        while True:
            job = self._described(name)
            for line in log.lines():
                _tell(line, progress)
            if (now := str(job.get("SecondaryStatus", ""))) != seen:
                self._say(f"{name}: {now}")
                seen = now
            if job["TrainingJobStatus"] not in _GOING:
                break
            time.sleep(self._settings.poll_seconds)
        if job["TrainingJobStatus"] != _DONE:
            reason = job.get("FailureReason") or job["TrainingJobStatus"]
            cure = f"Correct it and go on with `dermloop train … --on sagemaker --resume {name}`."
            raise RemoteJobError(f"training job {name}", reason, "a job that completes", cure)
        return job

    def _follow_tuning(self, name: str, progress: Progress) -> Mapping[str, Any]:
        while True:
            with told(f"tuning job {name}"):
                job: dict[str, Any] = self._jobs.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
            limit = job["HyperParameterTuningJobConfig"]["ResourceLimits"].get("MaxNumberOfTrainingJobs", _ended(job))
            best = job.get("BestTrainingJob", {}).get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value")
            progress("tune", _ended(job), limit, "no score yet" if best is None else f"best score {best:.4f}")
            if job["HyperParameterTuningJobStatus"] not in _GOING:
                return job
            time.sleep(self._settings.poll_seconds)

    def _described(self, name: str) -> dict[str, Any]:
        try:
            with told(f"training job {name}"):
                found: dict[str, Any] = self._jobs.describe_training_job(TrainingJobName=name)
        except AwsError as error:
            if "not found" in str(error).lower():
                cure = "Name a job of this region; `aws sagemaker list-training-jobs` shows them."
                raise RemoteJobError(f"training job {name}", "not there", "a job by name", cure) from error
            raise
        return found

    @contextmanager
    def _leaving(self, name: str) -> Iterator[None]:
        """Says how to come back to a job that goes on without us."""
        try:
            yield
        except KeyboardInterrupt:
            self._say(f"{name} goes on by itself; come back with --on sagemaker --resume {name}.")
            raise


def _write_inputs(folder: Path, order: TrainOrder) -> list[str]:
    """The channels that belong to one job, as folders: its settings, and the champion with its checkpoints."""
    (folder / sagemaker.CONFIG).mkdir()
    (folder / sagemaker.CONFIG / runs.SETTINGS).write_text(configs.encode(order.config), encoding="utf-8")
    champion = registry.champion(order.home / "models")
    if champion is None:
        return [sagemaker.CONFIG]
    models = folder / sagemaker.CHAMPION / "models"
    shutil.copytree(champion.root, models / champion.version)
    bundles.set_champion(models, champion.version)
    for part, checkpoint in zip(("detector", "classifier"), _CHECKPOINTS, strict=True):
        run = champion.lineage.get(f"{part}_run", "")
        source = order.home / "runs" / run
        if run and (source / checkpoint).is_file():
            target = folder / sagemaker.CHAMPION / "runs" / run
            target.mkdir(parents=True, exist_ok=True)
            for path in (path for path in source.iterdir() if path.is_file() and not path.name.startswith(".")):
                shutil.copy2(path, target)
    return [sagemaker.CONFIG, sagemaker.CHAMPION]


def _channel(name: str, address: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": f"{address}/", "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _name(stage: str, version: DatasetVersion) -> str:
    """A name that says what and when; its last part keeps two of one second apart (SageMaker takes 63 characters)."""
    return f"dermloop-{stage}-{version.digest[:8]}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{token_hex(2)}"


def _ended(job: Mapping[str, Any]) -> int:
    counts = job.get("TrainingJobStatusCounters", {})
    return sum(int(counts.get(name, 0)) for name in ("Completed", "Stopped", "NonRetryableError"))


def _tell(line: str, progress: Progress) -> None:
    if found := sagemaker.PROGRESS.search(line):
        progress(found["part"], int(found["done"]), int(found["total"]), found["text"])
