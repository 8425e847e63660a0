"""SageMaker in small: takes jobs over HTTP in its wire form and runs each as its contract says, on a folder here.

Channels, checkpoints and archives lie in moto's S3. What a container does is a function of that folder.
"""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import requests

Container = Callable[[Path], tuple[int, list[str]]]
"""Works on a folder laid out like /opt/ml; its exit status and the lines that it printed."""


class SmallSagemaker:
    """Jobs by name, what was asked for, and how containers of trainings behave."""

    def __init__(self, place: Path, container: Container | None = None, endpoint: str = "") -> None:
        self.place = place
        self.container = container
        self.endpoint = endpoint
        self.jobs: dict[str, dict[str, Any]] = {}
        self.lines: dict[str, list[str]] = {}
        self.threads: list[threading.Thread] = []
        self.s3 = boto3.client("s3")

    def answer(self, operation: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and answer of an operation; 400 in AWS's form for a job that is not there."""
        if operation == "FilterLogEvents":
            return 200, self._log(given["logStreamNamePrefix"].rstrip("/"))
        name = next(value for key, value in given.items() if key.endswith("Name") and isinstance(value, str))
        if operation.startswith("Create"):
            self.jobs[name] = {
                "operation": operation,
                **given,
                "CreationTime": time.time(),
                "LastModifiedTime": time.time(),
            }
            self._begin(operation, name)
            return 200, {"TrainingJobArn": f"arn:aws:sagemaker:eu-central-1:123456789012:job/{name}", **_arns(name)}
        if name not in self.jobs:
            return 400, {"__type": "ValidationException", "message": f"Requested resource not found: {name}"}
        return 200, {**self.jobs[name], **_arns(name)}

    def close(self) -> None:
        """Waits for the jobs and lets go of the store."""
        for thread in self.threads:
            thread.join()
        self.s3.close()

    def _begin(self, operation: str, name: str) -> None:
        work = {
            "CreateTrainingJob": self._train,
            "CreateTransformJob": self._transform,
            "CreateHyperParameterTuningJob": self._tune,
        }.get(operation)
        if work is not None:
            kind = operation.removeprefix("Create").removesuffix("Job")
            self.jobs[name] |= {f"{kind}JobStatus": "InProgress", "SecondaryStatus": "Starting"}
            thread = threading.Thread(target=work, args=(name,))
            self.threads.append(thread)
            thread.start()

    def _train(self, name: str) -> None:
        job = self.jobs[name]
        job["SecondaryStatus"] = "Training"
        status, lines, target = self._run(name, job, job["HyperParameters"])
        self.lines[name] = lines
        self._archive(self.place / name / "model", f"{target}/model.tar.gz")
        self._archive(self.place / name / "output" / "data", f"{target}/output.tar.gz")
        failure = self.place / name / "output" / "failure"
        if failure.is_file():
            job["FailureReason"] = f"AlgorithmError: {failure.read_text()}, exit code: {status}"
        ended = {0: "Completed", 143: "Stopped"}.get(status, "Failed")
        job |= {"ModelArtifacts": {"S3ModelArtifacts": f"{target}/model.tar.gz"}, "SecondaryStatus": ended}
        job["TrainingJobStatus"] = ended

    def _run(self, name: str, job: dict[str, Any], given: dict[str, str]) -> tuple[int, list[str], str]:
        root = self.place / name
        for channel in job["InputDataConfig"]:
            source = channel["DataSource"]["S3DataSource"]["S3Uri"]
            self._down(source, root / "input" / "data" / channel["ChannelName"])
        (root / "input" / "config").mkdir(parents=True)
        (root / "input" / "config" / "hyperparameters.json").write_text(json.dumps(given))
        checkpoints = job["CheckpointConfig"]["S3Uri"]
        self._down(f"{checkpoints}/", root / "checkpoints")
        for folder in ("model", "output/data", "checkpoints"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        assert self.container is not None
        status, lines = self.container(root)
        for path in (path for path in (root / "checkpoints").rglob("*") if path.is_file()):
            self._put(f"{checkpoints}/{path.relative_to(root / 'checkpoints')}", path.read_bytes())
        return status, lines, f"{job['OutputDataConfig']['S3OutputPath']}/{name}/output"

    def _tune(self, name: str) -> None:
        job = self.jobs[name]
        ranges = job["HyperParameterTuningJobConfig"]["ParameterRanges"]
        tried = {row["Name"]: row["Values"][0] for row in ranges["CategoricalParameterRanges"]}
        tried |= {row["Name"]: row["MinValue"] for row in ranges["ContinuousParameterRanges"]}
        plan = job["TrainingJobDefinition"]
        status, lines, _ = self._run(f"{name}-001", plan, {**plan["StaticHyperParameters"], **tried})
        (metric,) = (
            row for row in plan["AlgorithmSpecification"]["MetricDefinitions"] if row["Name"] == "validation:score"
        )
        import re

        scores = [float(value) for line in lines for value in re.findall(metric["Regex"], line)]
        job["TrainingJobStatusCounters"] = {"Completed": int(status == 0), "NonRetryableError": int(status != 0)}
        job["ObjectiveStatusCounters"] = {"Succeeded": len(scores), "Pending": 0, "Failed": 0}
        if scores:
            job["BestTrainingJob"] = {
                **_arns(f"{name}-001"), "TrainingJobName": f"{name}-001", "CreationTime": 0,
                "TrainingJobStatus": "Completed", "TunedHyperParameters": tried,
                "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": metric["Name"], "Value": scores[-1]},
            }  # fmt: skip
        job["HyperParameterTuningJobStatus"] = "Completed"

    def _transform(self, name: str) -> None:
        job = self.jobs[name]
        source = job["TransformInput"]["DataSource"]["S3DataSource"]
        for address in self._objects(source):
            lines = self._get(address).splitlines()
            kind = {"Content-Type": job["TransformInput"]["ContentType"]}
            answers = [
                requests.post(f"{self.endpoint}/invocations", data=line, headers=kind, timeout=60) for line in lines
            ]
            if any(answer.status_code != 200 for answer in answers):
                job |= {"FailureReason": "AlgorithmError: See job logs", "TransformJobStatus": "Failed"}
                return
            body = b"".join(answer.content.rstrip(b"\n") + b"\n" for answer in answers)
            self._put(f"{job['TransformOutput']['S3OutputPath']}/{address.rpartition('/')[2]}.out", body)
        job["TransformJobStatus"] = "Completed"

    def _objects(self, source: dict[str, str]) -> list[str]:
        if source["S3DataType"] != "ManifestFile":
            bucket, _, prefix = source["S3Uri"].removeprefix("s3://").partition("/")
            rows = self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
            return [f"s3://{bucket}/{row['Key']}" for row in rows]
        first, *keys = json.loads(self._get(source["S3Uri"]))
        return [first["prefix"] + key for key in keys]

    def _log(self, name: str) -> dict[str, Any]:
        lines = self.lines.get(name, [])
        return {"events": [{"eventId": str(n), "timestamp": n, "message": line} for n, line in enumerate(lines)]}

    def _down(self, address: str, target: Path) -> None:
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        for row in self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ()):
            path = target / row["Key"][len(prefix) :]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._get(f"s3://{bucket}/{row['Key']}"))

    def _get(self, address: str) -> bytes:
        bucket, _, key = address.removeprefix("s3://").partition("/")
        return bytes(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    def _put(self, address: str, body: bytes) -> None:
        bucket, _, key = address.removeprefix("s3://").partition("/")
        self.s3.put_object(Bucket=bucket, Key=key, Body=body)

    def _archive(self, folder: Path, address: str) -> None:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for path in sorted(folder.iterdir()):
                archive.add(path, path.name)
        self._put(address, stream.getvalue())


def _arns(name: str) -> dict[str, str]:
    arn = f"arn:aws:sagemaker:eu-central-1:123456789012:job/{name}"
    kinds = ("TrainingJob", "TransformJob", "HyperParameterTuningJob", "LabelingJob", "Model")
    return {f"{kind}Arn": arn for kind in kinds}


@contextmanager
def serving(small: SmallSagemaker) -> Iterator[str]:
    """The address where it takes jobs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            status, row = small.answer(operation, json.loads(body or b"{}"))
            content = json.dumps(row).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
    small.close()
