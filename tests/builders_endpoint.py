"""The serving container's entry point as SageMaker starts it: a process of its own that answers over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from werkzeug.serving import make_server

from ml_backend.sagemaker import create_endpoint
from ml_backend.settings import read_settings

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def endpoint_here(home: Path, buckets: str) -> Iterator[str]:
    """The address of the container's application in this process, for tests of what asks it."""
    app = create_endpoint(read_settings(home=home, allowed_buckets=buckets))
    parts = app.extensions["dermloop"]
    parts.host.current()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
    parts.close()


@contextmanager
def endpoint(model: Path, buckets: str = "") -> Iterator[str]:
    """The address of a started container with this model folder; it is there once `/ping` says so."""
    port = free_port()
    environment = {
        **os.environ,
        "DERMLOOP_ML_MODELS": str(model),
        "DERMLOOP_ML_ALLOWED_BUCKETS": buckets,
        "DERMLOOP_ML_HOME": str(model.parent / "home"),
        "SAGEMAKER_BIND_TO_PORT": str(port),
    }
    command = [sys.executable, "-m", "ml_backend.sagemaker", "serve"]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 120
            while not _is_ready(address):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()


def _is_ready(address: str) -> bool:
    try:
        return requests.get(f"{address}/ping", timeout=2).status_code == 200
    except requests.ConnectionError:
        return False
