"""Speed of the review: webhooks through the real service, reconciling with the real Label Studio, audit verification.

Prints a JSON object a line: `{"bench", "ours", "peer", "limit", "unit", "note"}`; `limit` is what was asked for. Needs
PostgreSQL's programs for its line, and installs Label Studio where it is missing.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from builders_postgresql import postgresql
from builders_review import SIZE, a_result, an_image

from converters.label_studio.controls import TaskField, Tier
from dermloop.stack import LABEL_STUDIO, Stack, free_ports
from review_workflow.people import Person, Role
from review_workflow.project_setup import SECRET_HEADER
from review_workflow.review import Event
from review_workflow.store import open_store

PORT = 9591
EVENTS, CLIENTS = 10_000, 8
TASKS, CHANGED = 5_000, 50
AUDIT_ROWS = 100_000


def main() -> None:
    """Runs every line of the bench."""
    with tempfile.TemporaryDirectory() as folder:
        _audit(Path(folder))
        _webhooks("sqlite", f"sqlite:///{folder}/hooks.db")
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        if shutil.which("pg_ctl") or Path("/usr/lib/postgresql").is_dir():
            with postgresql(Path(folder)) as server:
                _webhooks("postgresql", server.new_database())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _reconcile(Path(folder))


def _webhooks(kind: str, url: str) -> None:
    with _served(url):
        numbers, times, began = iter(range(1, EVENTS + 1)), [], time.perf_counter()
        lock = threading.Lock()
        threads = [threading.Thread(target=_send, args=(numbers, times, lock)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
    with (store := open_store(url)).reading() as session:
        noted = session.inbox_size()
    store.close()
    assert noted == EVENTS, f"{EVENTS - noted} of {EVENTS} events were lost"
    p99 = sorted(times)[int(0.99 * len(times))]
    note = f"p99 {1000 * p99:.0f} ms, {CLIENTS} clients, all {EVENTS} stored"
    _line(f"review.webhooks_{kind}", EVENTS / seconds, 300, "events/s", note)


def _send(numbers: Iterator[int], times: list[float], lock: threading.Lock) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    headers = {SECRET_HEADER: "bench", "Content-Type": "application/json"}
    contract = Path(__file__).parent.parent / "tests" / "contract" / "webhook_annotation_created.json"
    payload = orjson.loads(contract.read_bytes())
    while True:
        with lock:
            number = next(numbers, None)
        if number is None:
            connection.close()
            return
        payload["task"]["id"] = payload["annotation"]["task"] = number
        body = orjson.dumps(payload)
        began = time.perf_counter()
        connection.request("POST", "/webhook", body, headers)
        answer = connection.getresponse()
        answer.read()
        times.append(time.perf_counter() - began)
        assert answer.status == 200, answer.status


@contextmanager
def _served(url: str) -> Iterator[None]:
    settings = {
        "DATABASE_URL": url,
        "LABEL_STUDIO_URL": "http://127.0.0.1:9",
        "LABEL_STUDIO_TOKEN": "none",
        "WEBHOOK_SECRET": "bench",
        "SYNC_SECONDS": "3600",
    }
    environment = {**os.environ, **{f"DERMLOOP_REVIEW_{name}": value for name, value in settings.items()}}
    options = ["--bind", f"127.0.0.1:{PORT}", "--workers", "1", "--threads", "8", "--no-control-socket"]
    command = [sys.executable, "-m", "gunicorn", *options, "review_workflow.wsgi:app"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        _until_up()
        yield
    finally:
        process.terminate()
        process.wait()


def _until_up() -> None:
    for _ in range(300):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=1)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                connection.close()
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the review service did not start")


def _audit(folder: Path) -> None:
    store = open_store(f"sqlite:///{folder}/audit.db")
    before = a_result().decode()
    for start in range(0, AUDIT_ROWS, 1000):
        with store.writing() as session:
            events = [Event("read", f"r{n % 9}@example.org", "dermatologist", reason=before) for n in range(1000)]
            session.record_events(f"image-{start}", events, "p" * 64, time.time())
    began = time.perf_counter()
    with store.reading() as session:
        problems = session.verify_audit()
    seconds = time.perf_counter() - began
    store.close()
    assert problems == ()
    _line("review.audit", seconds, 5.0, "s", f"{AUDIT_ROWS} rows verified")


def _reconcile(folder: Path) -> None:
    stack = Stack.open(folder, free_ports(), say=lambda _: None)
    stack.start((LABEL_STUDIO,))
    try:
        service = stack.open_review()
        for login in stack.people:
            service.put_person(Person(login.email, login.role, login.user_id))
        service.set_up()
        service.register(an_image(number) for number in range(TASKS))
        service.settle(seconds=900)
        time.sleep(11)
        service.sync()
        technician = next(login for login in stack.people if login.role is Role.TECHNICIAN)
        _answer(stack, technician.token, service.project(Tier.TECHNICIAN))
        began = time.perf_counter()
        report = service.sync()
        seconds = time.perf_counter() - began
        assert report.counted == CHANGED
        note = f"{TASKS} tasks, {CHANGED} changed, {report.delivered} tasks written for the next readers"
        _line("review.reconcile", seconds, 15.0, "s", note)
        service.close()
    finally:
        stack.stop()


def _answer(stack: Stack, token: str, project: int) -> None:
    import httpx
    from label_studio_sdk import LabelStudio

    result = orjson.loads(a_result())
    with httpx.Client(timeout=60) as http_client:
        client = LabelStudio(base_url=stack.label_studio_url, api_key=token, httpx_client=http_client)
        page = client.tasks.list(project=project, page_size=CHANGED, fields="task_only")
        for task in list(page.items or ())[:CHANGED]:
            assert TaskField.KEY in task.data and SIZE
            client.annotations.create(task.id, result=result, lead_time=1.0)


def _line(bench: str, ours: float, limit: float, unit: str, note: str) -> None:
    row = {"bench": bench, "ours": round(ours, 3), "peer": None, "limit": limit, "unit": unit, "note": note}
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
