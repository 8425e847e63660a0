"""Traces reach a collector over OTLP/HTTP, join two programs, and hold no address; without a setting there are none."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from flask import Flask, jsonify
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from telemetry import request_id, tracing, web
from telemetry.errors import TelemetryError
from telemetry.metrics import Meter
from telemetry.settings import TelemetrySettings


class Collector(ThreadingHTTPServer):
    """An OTLP/HTTP collector that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiving)
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/traces"

    def spans(self) -> dict[str, Span]:
        scopes = [scope for got in self.requests for found in got.resource_spans for scope in found.scope_spans]
        return {span.name: span for scope in scopes for span in scope.spans}


class Receiving(BaseHTTPRequestHandler):
    """Takes one export."""

    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    tracing.stop()
    server.shutdown()
    thread.join()
    server.server_close()


def application() -> Flask:
    app = Flask("traced")
    web.observe(app, Meter())

    @app.get("/images/<name>")
    def image(name: str) -> object:
        with tracing.span("Label Studio: read a file"):
            return jsonify(request_id.outgoing())

    return app


def test_a_request_is_a_span_within_the_callers_trace_and_what_it_waits_for_lies_in_it(collector: Collector) -> None:
    tracing.start("test", TelemetrySettings(traces=collector.address))
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = (
        application()
        .test_client()
        .get("/images/Meier_Anna.jpg?sign=secret", headers={"traceparent": caller, "X-Request-ID": "request-1234"})
    )
    tracing.stop()
    spans = collector.spans()
    outer, inner = spans["GET /images/<name>"], spans["Label Studio: read a file"]
    assert outer.trace_id.hex() == inner.trace_id.hex() == caller.split("-")[1]
    assert outer.parent_span_id.hex() == caller.split("-")[2] and inner.parent_span_id == outer.span_id
    assert answer.json is not None and answer.json["X-Request-ID"] == "request-1234"
    assert answer.json["traceparent"].split("-")[2] == inner.span_id.hex()
    assert {value.key: value.value.int_value for value in outer.attributes}["status"] == 200
    text = "".join(str(request) for request in collector.requests)
    assert "Meier" not in text and "secret" not in text and "dermloop-test" in text


def test_a_process_goes_on_with_the_trace_that_it_was_started_in(collector: Collector) -> None:
    tracing.start("worker", TelemetrySettings(traces=collector.address))
    with tracing.span("job retrain"):
        environment = {tracing.VARIABLE: tracing.parent()}
    with tracing.span("retraining", tracing.inherited(environment)):
        assert tracing.trace_id() == environment[tracing.VARIABLE].split("-")[1]
    tracing.stop()
    spans = collector.spans()
    assert spans["retraining"].parent_span_id == spans["job retrain"].span_id


def test_without_an_address_nothing_is_traced_and_nothing_is_imported() -> None:
    code = (
        "import sys; from telemetry import tracing; from telemetry.settings import TelemetrySettings\n"
        "tracing.start('x', TelemetrySettings())\n"
        "with tracing.span('nothing'): assert tracing.outgoing() == {} and tracing.trace_id() == ''\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_missing_extra_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TelemetryError, match=r"pip install 'dermloop\[tracing\]'"):
        tracing.start("x", TelemetrySettings(traces="http://127.0.0.1:1"))
