"""A metrics page for a program that answers no requests otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from telemetry.errors import TelemetryError
from telemetry.metrics import CONTENT_TYPE

Page = Callable[[], bytes]
"""The page of this moment; empty where it cannot be said now."""


@contextmanager
def given_out(page: Page, address: str) -> Iterator[str]:
    """Answers `/metrics` at `host:port` inside the block, which is told the address; nothing happens for an empty one.

    Raises TelemetryError where the address is malformed or taken.
    """
    if not address:
        yield ""
        return
    server = _server(page, address)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"{server.server_address[0]!s}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _server(page: Page, address: str) -> ThreadingHTTPServer:
    host, _, port = address.rpartition(":")
    try:
        return ThreadingHTTPServer((host or "127.0.0.1", int(port)), _handler(page))
    except (OSError, ValueError, OverflowError) as error:
        cure = "Name a free one, such as 127.0.0.1:9092."
        raise TelemetryError("DERMLOOP_WORKER_METRICS", address, "host:port to listen on", cure) from error


def _handler(page: Page) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = (200, page()) if self.path == "/metrics" else (404, b"only /metrics is here\n")
            self.send_response(status if content else 503)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing: these questions come every few seconds."""

    return Handler
