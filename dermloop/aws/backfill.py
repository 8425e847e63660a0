"""Many pictures of a bucket read at once: by a batch transform job, or by serving containers at given addresses."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx
import orjson

from dermloop.aws.clients import Aws, told
from dermloop.aws.settings import AwsSettings
from dermloop.aws.shards import Joined, Shards
from dermloop.errors import AwsError, BackfillError
from ml_backend.bundle import CHAMPION, ModelBundle
from ml_backend.sagemaker import LINES
from training.remote import RemoteRegistry

_LINES_AT_ONCE = 16
_SECONDS = 90.0

Told = Callable[[str], None]
Each = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Backfilled:
    """How far a backfill is: its shards, those done before, pictures read and unreadable now, and what waits."""

    shards: int
    done_before: int
    read: int = 0
    unreadable: int = 0
    again: int = 0
    pending: int = 0


class Reader(Protocol):
    """Something that answers shards."""

    def read(self, shards: Shards, names: Sequence[str]) -> None:
        """Leaves the answers of these shards in the backfill's folder; some may be missing afterwards."""
        ...


def backfill(
    shards: Shards, source: tuple[str, str], reader: Reader, size: int, everything: bool, each: Each, say: Told
) -> Backfilled:
    """How far the backfill of a bucket's prefix is after this run; run again, it does only what is pending.

    Answers that were left by an interrupted run are used. Raises BackfillError or AwsError.
    """
    names = shards.plan(*source, size, everything)
    pending = shards.pending(names)
    say(f"{len(names)} shards, {len(names) - len(pending)} done before.")
    count = Count(each, say)
    left = count.join(shards, pending, last=False)
    if left:
        reader.read(shards, left)
        left = count.join(shards, left, last=True)
    return Backfilled(len(names), len(names) - len(pending), count.read, count.unreadable, count.again, len(left))


class Count:
    """What a run has joined so far; every answer is passed on once."""

    def __init__(self, each: Each, say: Told) -> None:
        self._each = each
        self._say = say
        self.read = self.unreadable = self.again = 0

    def join(self, shards: Shards, names: Sequence[str], last: bool) -> tuple[str, ...]:
        """The shards still pending after those with answers were joined; one half answered counts when `last`."""
        answered, left = shards.answered(), []
        for name in names:
            found = shards.join(name, answered[name]) if name in answered else None
            if found is None or found.again:
                left.append(name)
            if found is not None and (last or not found.again):
                self._note(name, found)
        return tuple(left)

    def _note(self, name: str, found: Joined) -> None:
        self._say(f"{name}: {found.read} read, {found.unreadable} unreadable, {found.again} to be tried again.")
        self.read += found.read
        self.unreadable += found.unreadable
        self.again += found.again
        for row in found.rows:
            self._each(row)


class ContainerReader:
    """Serving containers that answer at `/invocations`, each asked in turn."""

    def __init__(self, addresses: Sequence[str], parallel: int) -> None:
        self._addresses = tuple(address.rstrip("/") for address in addresses)
        self._parallel = parallel

    def read(self, shards: Shards, names: Sequence[str]) -> None:
        """Asks for every line of the shards; a shard is left without answers where a container fails.

        Raises BackfillError naming the address where none was answered at all.
        """
        with ThreadPoolExecutor(self._parallel) as callers, httpx.Client(timeout=_SECONDS) as client:
            for name in names:
                parts = _parts([_question(line) for line in shards.asked(name)])
                found = callers.map(lambda pair: self._ask(client, *pair), enumerate(parts))
                shards.answer(name, [line for lines in found for line in lines])

    def _ask(self, client: httpx.Client, number: int, lines: Sequence[bytes]) -> list[bytes]:
        address = self._addresses[number % len(self._addresses)]
        try:
            answer = client.post(
                f"{address}/invocations", content=b"\n".join(lines), headers={"Content-Type": LINES[0]}
            )
        except httpx.HTTPError as error:
            cure = "Start the container there, and run the same command again."
            raise BackfillError(address, type(error).__name__, "a serving container", cure) from error
        if answer.status_code != 200:
            reason = f"status {answer.status_code} ({answer.text[:200]})"
            raise BackfillError(address, reason, "answers", "Correct the cause and run the same command again.")
        return answer.content.splitlines()


class TransformReader:
    """A batch transform job on SageMaker for each run."""

    def __init__(self, aws: Aws, settings: AwsSettings, model: str, say: Told) -> None:
        self._aws = aws
        self._settings = settings
        self._model = model
        self._say = say

    def read(self, shards: Shards, names: Sequence[str]) -> None:
        """Has the shards answered by one job and waits for it; raises BackfillError with the job's own reason."""
        attempt = f"{datetime.now(UTC):%y%m%d-%H%M%S}"
        job = f"{shards.name[:40]}-{attempt}"
        self._say(f"Transform job {job}: {len(names)} shards on {self._settings.backfill_instance}.")
        with told(f"transform job {job}"):
            self._aws.client("sagemaker").create_transform_job(**self._request(job, shards, names, attempt))
        ended = self._wait(job)
        if ended["TransformJobStatus"] != "Completed":
            reason = ended.get("FailureReason") or ended["TransformJobStatus"]
            cure = "Look at its log; run the same command again: shards that are done stay done."
            raise BackfillError(f"transform job {job}", reason, "a job that completes", cure)

    def _request(self, job: str, shards: Shards, names: Sequence[str], attempt: str) -> dict[str, Any]:
        source = {"S3DataType": "ManifestFile", "S3Uri": shards.manifest(names, attempt)}
        own = self._settings
        return {
            "TransformJobName": job,
            "ModelName": self._model,
            "MaxConcurrentTransforms": own.backfill_parallel,
            "BatchStrategy": "SingleRecord",
            "TransformInput": {
                "DataSource": {"S3DataSource": source},
                "ContentType": LINES[0],
                "SplitType": "Line",
            },
            "TransformOutput": {"S3OutputPath": shards.address("out"), "AssembleWith": "Line", "Accept": LINES[0]},
            "TransformResources": {"InstanceType": own.backfill_instance, "InstanceCount": own.backfill_instances},
        }

    def _wait(self, job: str) -> Mapping[str, Any]:
        while True:
            with told(f"transform job {job}"):
                found: dict[str, Any] = self._aws.client("sagemaker").describe_transform_job(TransformJobName=job)
            if found["TransformJobStatus"] not in ("InProgress", "Stopping"):
                return found
            time.sleep(self._settings.poll_seconds)


def register_model(aws: Aws, bundle: ModelBundle, bucket: str, image: str, role: str) -> str:
    """The name of a SageMaker model that serves a bundle; made once, from an archive in the bucket made once."""
    RemoteRegistry(f"s3://{bucket}").push_model(bundle)
    name = f"dermloop-{bundle.version}".replace(".", "-").replace("_", "-")[:63]
    key = f"models/{bundle.version}/model.tar.gz"
    with told(f"s3://{bucket}/{key}"):
        found = aws.client("s3").list_objects_v2(Bucket=bucket, Prefix=key).get("Contents")
        if not found:
            aws.client("s3").put_object(Bucket=bucket, Key=key, Body=_archive(bundle))
    container = {
        "Image": image,
        "ModelDataUrl": f"s3://{bucket}/{key}",
        "Environment": {"DERMLOOP_ML_ALLOWED_BUCKETS": bucket},
    }
    try:
        with told(f"model {name}"):
            aws.client("sagemaker").create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role)
    except AwsError as error:
        if "already exist" not in str(error).lower():
            raise
    return name


def _archive(bundle: ModelBundle) -> bytes:
    """A models folder with one bundle and the pointer to it, as an archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.add(bundle.root, bundle.version)
        pointer = orjson.dumps({"version": bundle.version})
        row = tarfile.TarInfo(CHAMPION)
        row.size = len(pointer)
        archive.addfile(row, io.BytesIO(pointer))
    return stream.getvalue()


def _question(line: Mapping[str, str]) -> bytes:
    return orjson.dumps({"s3": line["s3"]})


def _parts(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(lines), _LINES_AT_ONCE):
        yield lines[start : start + _LINES_AT_ONCE]
