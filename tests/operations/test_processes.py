"""The real programs, watched: one request id from end to end, nothing secret in a log, and each metric really there."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import promql_parser
import pytest
import yaml
from builders_processes import ROOT, Program, free_ports, running, until
from builders_serving import bundle, encoded, pixels

from dermloop.worker_metrics import WorkerMetrics
from ml_backend.jobs import JobHandle, JobQueue, JobState
from review_workflow.project_setup import SECRET_HEADER
from telemetry import request_id
from telemetry.catalogue import CATALOGUE, Kind
from telemetry.page_server import given_out

OBSERVED = ROOT / "docker" / "observability"
OPERATOR, METRICS = "operator-token-0123456789", "metrics-token-0123456789"
LABEL_STUDIO = "legacy0token0123456789abcdef0123456789abc"
REQUEST = "one-request-0001"
NAME = "Meier_Anna_1950"
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="Lesion, not classified"/></RectangleLabels></View>'
)
HISTOGRAM = ("_bucket", "_sum", "_count")


class Uploads(BaseHTTPRequestHandler):
    """A Label Studio's uploads: one picture under every name; remembers the request ids that it was shown."""

    shown: list[str | None] = []  # noqa: RUF012 - the handler's class is the server's one memory

    def do_GET(self) -> None:
        self.shown.append(self.headers.get(request_id.HEADER))
        content = encoded(pixels())
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def uploads() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Uploads)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory, uploads: str) -> Iterator[Program]:
    home, port = tmp_path_factory.mktemp("serving"), free_ports(1)[0]
    bundle(home)
    settings = {
        "DERMLOOP_ML_HOME": str(home),
        "DERMLOOP_ML_TOKENS": f"operator:{OPERATOR}",
        "DERMLOOP_ML_LABEL_STUDIO_URL": uploads,
        "DERMLOOP_ML_LABEL_STUDIO_TOKEN": LABEL_STUDIO,
    }
    command = [sys.executable, "-m", "dermloop", "serve", "--port", str(port)]
    with running(command, port, home / "backend.log", **settings) as program:
        until(lambda: program.ask("/readyz")[0] == 200, 240, program.log)
        yield program


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    home, port = tmp_path_factory.mktemp("review"), free_ports(1)[0]
    settings = {
        "DERMLOOP_REVIEW_HOME": str(home),
        "DERMLOOP_REVIEW_LABEL_STUDIO_URL": "http://127.0.0.1:9",
        "DERMLOOP_REVIEW_LABEL_STUDIO_TOKEN": LABEL_STUDIO,
        "DERMLOOP_REVIEW_WEBHOOK_SECRET": "webhook-secret-0123456789",
        "DERMLOOP_REVIEW_METRICS_TOKEN": METRICS,
    }
    command = [
        sys.executable, "-m", "gunicorn", "--config", "python:telemetry.gunicorn_config", "--name", "review",
        "--bind", f"127.0.0.1:{port}", "--workers", "2", "--threads", "2", "review_workflow.wsgi:app",
    ]  # fmt: skip
    with running(command, port, home / "review.log", **settings) as program:
        yield program


def predicted(backend: Program, **headers: str) -> tuple[int, dict[str, str], bytes]:
    task = {"id": 7, "data": {"image": f"/data/upload/1/{NAME}.jpg"}}
    body = orjson.dumps({"tasks": [task], "project": "1", "label_config": CONFIG})
    login = {"Authorization": f"Bearer {OPERATOR}", "Content_Type": "application/json"}
    return backend.ask("/predict", body, **{**login, **headers})


def hook(review: Program, **headers: str) -> int:
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 1}, "task": {"id": 4, "data": {"name": NAME}}}
    return review.ask("/webhook", orjson.dumps(body), **headers)[0]


def scraped(program: Program, token: str) -> str:
    status, _, page = program.ask("/metrics", Authorization=f"Bearer {token}")
    assert status == 200
    return page.decode()


def test_the_callers_id_goes_through_the_backend_to_label_studio_and_into_the_log(backend: Program) -> None:
    status, headers, body = predicted(backend, X_Request_ID=REQUEST)
    assert status == 200 and headers[request_id.HEADER] == REQUEST
    assert orjson.loads(body)["results"][0]["result"]
    assert REQUEST in Uploads.shown
    (line,) = [line for line in backend.lines() if line.get("request_id") == REQUEST and line["message"] == "answered"]
    assert line["route"] == "/predict" and line["status"] == 200 and line["program"] == "ml-backend"


def test_an_error_names_its_request_in_the_body_and_in_the_header(backend: Program, review: Program) -> None:
    for program in (backend, review):
        status, headers, body = program.ask("/nowhere", X_Request_ID=REQUEST, Authorization=f"Bearer {OPERATOR}")
        assert status == 404 and headers[request_id.HEADER] == REQUEST
        assert orjson.loads(body)["request_id"] == REQUEST


def test_a_webhooks_id_is_in_every_line_about_it(review: Program) -> None:
    secret = {SECRET_HEADER.replace("-", "_"): "webhook-secret-0123456789"}
    assert hook(review, X_Request_ID=REQUEST, **secret) == 200
    assert hook(review, X_Request_ID="not our secret!", **secret) == 200
    assert hook(review, X_Request_ID="forged-0001") == 401
    found = {(line.get("request_id"), line.get("status")) for line in review.lines() if line.get("route") == "/webhook"}
    assert {(REQUEST, 200), ("forged-0001", 401)} <= found and len(found) == 3


def test_counts_of_two_processes_add_up_and_strangers_are_not_told(review: Program) -> None:
    for number in range(12):
        assert review.ask(f"/nowhere/{number}")[0] == 404
    pages = [scraped(review, METRICS) for _ in range(6)]
    counts = [re.search(r'seconds_count\{route="unknown",status="404"\} (\d+)', page) for page in pages]
    assert all(count is not None and int(count[1]) >= 12 for count in counts)
    assert review.ask("/metrics")[0] == 401 and review.ask("/metrics", Authorization="Bearer wrong")[0] == 401


def test_no_log_holds_a_name_a_token_or_a_picture(backend: Program, review: Program) -> None:
    predicted(backend)
    predicted(backend, Content_Type="text/plain")
    backend.ask(f"/v1/overlay?image=/data/upload/1/{NAME}.jpg", Authorization=f"Bearer {OPERATOR}")
    backend.ask(f"/detect/{NAME}.jpg", Authorization=f"Bearer {OPERATOR}")
    hook(review)
    review.ask(f"/images/{NAME}", Authorization=f"Bearer {METRICS}")
    for program in (backend, review):
        text = program.log.read_text(encoding="utf-8")
        assert len(program.lines()) > 3
        secrets = (NAME, OPERATOR, METRICS, LABEL_STUDIO, "webhook-secret", "JFIF", "iVBOR", "Meier")
        assert [secret for secret in secrets if secret in text] == []


@pytest.fixture(scope="module")
def exported(backend: Program, review: Program, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of every series that the three programs give out."""
    predicted(backend)
    hook(review, X_Request_ID=REQUEST)
    queue = JobQueue.open(tmp_path_factory.mktemp("jobs") / "jobs.db")
    page = worked_off(queue)
    queue.close()
    pages = [scraped(backend, OPERATOR), scraped(review, METRICS), page]
    return {line.split("{")[0].split()[0] for page in pages for line in page.splitlines() if not line.startswith("#")}


def worked_off(queue: JobQueue) -> str:
    """The worker's page after a job that succeeded and one that failed, over HTTP."""
    metrics = WorkerMetrics(queue, "retrain")
    seen: list[str] = []

    def work(handle: JobHandle) -> str:
        seen.append(request_id.current())
        return "done"

    def broken(handle: JobHandle) -> str:
        raise ValueError(NAME)

    with request_id.bound(REQUEST):
        job = queue.request("retrain", "a test", "test")
    queue.register("retrain", metrics.timed(work))
    queue.work_off()
    assert seen == [REQUEST] and queue.get(job.id).state is JobState.SUCCEEDED
    queue.register("retrain", metrics.timed(broken))
    queue.request("retrain", "again", "test")
    queue.work_off()
    with given_out(metrics.page, "127.0.0.1:0") as address:
        return scraped(Program(f"http://{address}", Path()), "")


def test_each_metric_of_the_catalogue_is_given_out(exported: set[str]) -> None:
    endings = {kind: HISTOGRAM if kind is Kind.HISTOGRAM else ("",) for kind in Kind}
    wanted = {metric.name + ending for metric in CATALOGUE for ending in endings[metric.kind]}
    assert wanted - exported == set()


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((OBSERVED / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((OBSERVED / "dashboards" / "dermloop.json").read_text())["panels"]
    return found


def expressions() -> list[str]:
    return [*(rule["expr"] for rule in rules()), *(t["expr"] for panel in panels() for t in panel["targets"])]


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_is_promql_over_metrics_that_are_given_out(expression: str, exported: set[str]) -> None:
    names: set[str] = set()

    def look(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            names.add(str(node.name))
        elif isinstance(node, promql_parser.MatrixSelector):
            names.add(str(node.vector_selector.name))
        return True

    promql_parser.walk(promql_parser.parse(expression), look)
    assert names and names - {"up"} - exported == set()


def test_every_alert_says_what_is_wrong_and_what_to_do_and_the_five_that_matter_are_there() -> None:
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "cure"} and rule["labels"]["severity"] in ("page", "ticket")
    names = {rule["alert"] for rule in rules()}
    assert {"QueueTooOld", "JobsFail", "ScoresDrift", "DisagreementRises", "WebhooksLost"} <= names


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
