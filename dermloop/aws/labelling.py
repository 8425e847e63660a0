"""Ground Truth labelling jobs: pictures, classes and page put into the bucket, a job made, its answers collected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from converters import storage
from converters.dataset import DatasetItem
from converters.formats.contract import ReadSettings
from converters.formats.ground_truth import GROUND_TRUTH_FORMATS
from converters.report import Entry
from converters.taxonomy import Taxonomy
from dermloop.aws.clients import Aws, told
from dermloop.aws.stack import StackView
from dermloop.errors import AwsError, LabellingError

ATTRIBUTE = "lesions"
MANIFEST = "output.manifest"
_PAGE = Path(__file__).with_name("labelling.html")
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_MOST_LABELS = 50
_TASK_SECONDS = 3600
_ACCOUNTS: Mapping[str, str] = {
    "us-east-1": "432418664414",
    "us-east-2": "266458841044",
    "us-west-2": "081040173940",
    "ca-central-1": "918755190332",
    "eu-west-1": "568282634449",
    "eu-west-2": "487402164563",
    "eu-central-1": "203001061592",
    "ap-northeast-1": "477331159723",
    "ap-northeast-2": "845288260483",
    "ap-south-1": "565803892007",
    "ap-southeast-1": "377565633583",
    "ap-southeast-2": "454466003867",
}
"""Accounts that hold Ground Truth's own steps, by region (API reference of CreateLabelingJob)."""

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """A labelling job to create: its name, who labels, how many read each picture, and for how many days it is open."""

    name: str
    workteam: str
    readers: int = 1
    days: int = 10
    title: str = "Outline skin lesions"


@dataclass(frozen=True, slots=True)
class Collected:
    """What a labelling job brought: the folder to convert, pictures and lesions read, and what was refused and why."""

    folder: Path
    images: int
    lesions: int
    refused: tuple[str, ...]


def create(aws: Aws, view: StackView, order: Order, images: Path, taxonomy: Taxonomy, say: Told) -> int:
    """How many pictures the created job holds; pictures that are in the bucket already are not sent again.

    Raises LabellingError for a folder without pictures, too many classes or a region without Ground Truth.
    """
    region, bucket, role = aws.region_name, view.output("Bucket"), view.output("LabellingRoleArn")
    if region not in _ACCOUNTS:
        raise LabellingError("region", region, f"one of {', '.join(_ACCOUNTS)}", "Set AWS_REGION to one of these.")
    names = sorted(path.name for path in images.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not names:
        raise LabellingError(str(images), "no picture", "JPEG or PNG files", "Name another folder with --images.")
    if len(taxonomy.diagnoses) > _MOST_LABELS:
        count = len(taxonomy.diagnoses)
        raise LabellingError("taxonomy", f"{count} classes", f"at most {_MOST_LABELS}", "Use a smaller taxonomy.")
    place = f"s3://{bucket}/labelling/{order.name}"
    say(f"{storage.put(images, f'{place}/images')} files sent to {place}/images.")
    parts = {
        "input.manifest": b"".join(orjson.dumps({"source-ref": f"{place}/images/{name}"}) + b"\n" for name in names),
        "labels.json": labels(taxonomy),
        "page.html": _PAGE.read_bytes(),
    }
    for name, body in parts.items():
        with told(f"{place}/{name}"):
            aws.client("s3").put_object(Bucket=bucket, Key=f"labelling/{order.name}/{name}", Body=body)
    with told(f"labelling job {order.name}"):
        aws.client("sagemaker").create_labeling_job(**_request(order, place, role, region))
    return len(names)


def labels(taxonomy: Taxonomy) -> bytes:
    """The label category file: the classes of the taxonomy by their names, in its order."""
    rows = [{"label": diagnosis.name} for diagnosis in taxonomy.diagnoses]
    return orjson.dumps({"document-version": "2018-11-28", "labels": rows})


def collect(aws: Aws, name: str, folder: Path, taxonomy: Taxonomy) -> Collected:
    """What a finished labelling job brought, with its manifest and pictures in a folder that `dermloop convert` reads.

    Raises LabellingError for a job that is not there, failed, or is still going on, with how far it is.
    """
    job = _described(aws, name)
    state, counts = job["LabelingJobStatus"], job.get("LabelCounters", {})
    if state not in ("Completed", "Stopped") or "LabelingJobOutput" not in job:
        far = f"{state}, {counts.get('TotalLabeled', 0)} labelled, {counts.get('Unlabeled', 0)} to go"
        reason = job.get("FailureReason") or far
        raise LabellingError(f"labelling job {name}", reason, "a finished job", "Run the same command again later.")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = storage.fetch(job["LabelingJobOutput"]["OutputDatasetS3Uri"], folder)
    if manifest.name != MANIFEST:
        manifest = manifest.rename(folder / MANIFEST)
    source = str(job["InputConfig"]["DataSource"]["S3DataSource"]["ManifestS3Uri"]).rpartition("/")[0]
    storage.fetch(f"{source}/images", folder / "images")
    return _counted(folder, ReadSettings(taxonomy=taxonomy, images=folder / "images"))


def _counted(folder: Path, settings: ReadSettings) -> Collected:
    """The collected answers, read as `dermloop convert` will read them."""
    reader = next(one.read for one in GROUND_TRUTH_FORMATS if one.name == "ground-truth-boxes")
    assert reader is not None
    found = list(reader(folder / MANIFEST, settings))
    items = [one for one in found if isinstance(one, DatasetItem)]
    refused = tuple(f"{one.item}: {one.value}; {one.reason}" for one in found if isinstance(one, Entry))
    return Collected(folder, len(items), sum(len(item.truth.lesions) for item in items), refused)


def _described(aws: Aws, name: str) -> Mapping[str, Any]:
    try:
        with told(f"labelling job {name}"):
            found: Mapping[str, Any] = aws.client("sagemaker").describe_labeling_job(LabelingJobName=name)
    except AwsError as error:
        if "not found" in str(error).lower():
            raise LabellingError(f"labelling job {name}", "not there", "a job by name", "Correct the name.") from error
        raise
    return found


def _request(order: Order, place: str, role: str, region: str) -> dict[str, Any]:
    """The job; pictures are never declared free of personal data, which would open them to a public workforce."""

    def own(step: str) -> str:
        return f"arn:aws:lambda:{region}:{_ACCOUNTS[region]}:function:{step}-BoundingBox"

    return {
        "LabelingJobName": order.name,
        "LabelAttributeName": ATTRIBUTE,
        "InputConfig": {
            "DataSource": {"S3DataSource": {"ManifestS3Uri": f"{place}/input.manifest"}},
        },
        "OutputConfig": {"S3OutputPath": f"{place}/output/"},
        "RoleArn": role,
        "LabelCategoryConfigS3Uri": f"{place}/labels.json",
        "HumanTaskConfig": {
            "WorkteamArn": order.workteam,
            "UiConfig": {"UiTemplateS3Uri": f"{place}/page.html"},
            "PreHumanTaskLambdaArn": own("PRE"),
            "AnnotationConsolidationConfig": {"AnnotationConsolidationLambdaArn": own("ACS")},
            "TaskTitle": order.title,
            "TaskDescription": "One tight box for each skin lesion, named with its class.",
            "NumberOfHumanWorkersPerDataObject": order.readers,
            "TaskTimeLimitInSeconds": _TASK_SECONDS,
            "TaskAvailabilityLifetimeInSeconds": order.days * 24 * 3600,
        },
    }
