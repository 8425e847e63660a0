"""The steady caller sees every failure and every model version."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from flask import Flask, Response, jsonify
from werkzeug.serving import make_server

from dermloop.loop.caller import SteadyCaller


@pytest.fixture
def backend() -> Iterator[str]:
    app = Flask(__name__)
    answered = 0

    @app.post("/predict")
    def predict() -> Response | tuple[Response, int]:
        nonlocal answered
        answered += 1
        if answered == 2:
            return jsonify({}), 503
        return jsonify({"results": [{"model_version": "old" if answered == 1 else "new", "result": []}]})

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_swap_shows_both_versions_and_a_failed_call_is_counted(backend: str) -> None:
    with SteadyCaller(backend, None, {"id": 1, "data": {}}, "<View/>") as caller:
        deadline = time.monotonic() + 10
        while caller.report.calls < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert caller.report.versions == ("old", "new")
    assert len(caller.report.failures) == 1
    assert "503" in caller.report.failures[0]
