"""The serving program as a process: starts without torch, answers at once, and comes back when it is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from builders_serving import bundle, encoded, pixels

ROOT = Path(__file__).parents[2]
BODY = {"tasks": [{"id": n, "data": {"image": "/data/local-files/?d=images/a.png"}} for n in range(200)]}
STARTS = {
    "dermloop": ["-c", "from ml_backend.cli import app; app()", "serve"],
    "label-studio-ml": [str(ROOT / "ml_backend" / "_wsgi.py")],
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    bundle(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(pixels()))
    port = free_port()
    environment = {**os.environ, "DERMLOOP_ML_HOME": str(tmp_path), "DERMLOOP_ML_PREDICT_SECONDS": "60"}
    command = [sys.executable, *STARTS[request.param], "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        yield f"http://127.0.0.1:{port}", process
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert b"terminate called" not in (tmp_path / "log").read_bytes()


def until(answers: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError):
            if answers():
                return True
        time.sleep(0.05)
    return False


def worker_of(process: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


@pytest.mark.parametrize("served", ["label-studio-ml"], indirect=True)
def test_label_studio_s_own_tool_starts_the_same_service(served: tuple[str, subprocess.Popen[bytes]]) -> None:
    address, _ = served
    small = {"tasks": BODY["tasks"][:1]}
    assert until(lambda: bool(requests.post(f"{address}/predict", json=small, timeout=20).json()["results"][0]), 30)


@pytest.mark.parametrize("served", ["dermloop"], indirect=True)
def test_a_worker_killed_in_the_middle_of_a_batch_is_replaced(served: tuple[str, subprocess.Popen[bytes]]) -> None:
    address, process = served
    assert until(lambda: requests.post(f"{address}/predict", json={"tasks": []}, timeout=20).ok, 30)
    caller = threading.Thread(target=lambda: ended(f"{address}/predict"))
    caller.start()
    time.sleep(0.05)
    os.kill(worker_of(process), signal.SIGKILL)
    began = time.monotonic()
    assert until(lambda: requests.get(f"{address}/health", timeout=5).ok, 15)
    restarted = time.monotonic() - began
    caller.join()
    small = {"tasks": BODY["tasks"][:2]}
    assert until(lambda: len(requests.post(f"{address}/predict", json=small, timeout=20).json()["results"][0]) == 3, 15)
    assert restarted < 5


def ended(address: str) -> None:
    with contextlib.suppress(requests.RequestException):
        requests.post(address, json=BODY, timeout=20)


@pytest.mark.soak
@pytest.mark.parametrize("served", ["dermloop"], indirect=True)
def test_callers_that_fall_silent_hold_the_service_up_for_seconds_only(
    served: tuple[str, subprocess.Popen[bytes]],
) -> None:
    address, _ = served
    assert until(lambda: requests.get(f"{address}/health", timeout=5).ok, 30)
    host, port = address.removeprefix("http://").split(":")
    with contextlib.ExitStack() as open_ones:
        for _ in range(40):
            caller = open_ones.enter_context(socket.create_connection((host, int(port)), timeout=5))
            caller.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Le")
        with contextlib.suppress(requests.RequestException):
            requests.get(f"{address}/health", timeout=0.5)
        assert until(lambda: requests.get(f"{address}/health", timeout=30).ok, 60)


def test_serving_needs_neither_torch_nor_tensorflow(tmp_path: Path) -> None:
    bundle(tmp_path)
    script = """
        import sys
        from pathlib import Path
        for name in ("torch", "torchvision", "ultralytics", "tensorflow", "keras", "onnx", "tf2onnx", "cv2", "pandas"):
            sys.modules[name] = None
        from ml_backend.app import create_app
        from ml_backend.settings import read_settings
        app = create_app(read_settings(home=Path(sys.argv[1])))
        client = app.test_client()
        with open(sys.argv[2], "rb") as picture:
            answer = client.post("/predict", data={"image": picture})
        told = client.post("/predict", json={"tasks": []})
        app.extensions["dermloop"].close()
        assert answer.status_code == told.status_code == 200, answer.text
        print(answer.json["model_version"])
    """
    (tmp_path / "a.png").write_bytes(encoded(pixels()))
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), str(tmp_path / "a.png")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("tiny-")
