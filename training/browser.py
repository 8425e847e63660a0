"""Runs a network in a real browser: a page on loopback loads it, answers one input, and posts what it said."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ml_backend.preprocessing import Floats
from training.errors import ToolError
from training.toolbox import chromium

_PAGE = Path(__file__).with_name("templates") / "probe.html"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
_FLAGS = ("--headless", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-extensions")
_MOST = 1 << 28


@dataclass(slots=True)
class _Board:
    """What the page has posted so far; `done` is set with its last word."""

    files: Mapping[str, Path]
    given: Floats
    word: str
    outputs: dict[str, Floats] = field(default_factory=dict)
    failure: str = ""
    done: threading.Event = field(default_factory=threading.Event)


def answer(engine: str, files: Mapping[str, Path], given: Floats, seconds: float = 240) -> dict[str, Floats]:
    """The outputs of a network by name, as a headless Chromium computes them for one input.

    `engine` is `onnx` or `tfjs`, `files` are all that the page loads, by the name it asks for: the runtime's own, and
    `model.onnx` or `model.json` with its weights. Raises ToolError with the page's words, or where it stays silent.
    """
    board = _Board(files, given, secrets.token_hex(8))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(board))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        shape = "x".join(str(extent) for extent in given.shape)
        address = f"http://127.0.0.1:{server.server_port}/{board.word}/probe.html?engine={engine}&shape={shape}"
        _visit(address, board, seconds)
    finally:
        server.shutdown()
        server.server_close()
    if board.failure or not board.outputs:
        raise ToolError(f"{engine} in the browser", board.failure or "no answer", "outputs", "Export the model again.")
    return board.outputs


def _visit(address: str, board: _Board, seconds: float) -> None:
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = (chromium(), *_FLAGS, *sandbox, f"--user-data-dir={profile}", address)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            if not board.done.wait(seconds):
                board.failure = f"nothing within {seconds:.0f} s"
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _handler(board: _Board) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self._name()
            if name == "input.bin":
                return self._send(board.given.astype("<f4").tobytes(), "application/octet-stream")
            path = _PAGE if name == "probe.html" else board.files.get(name)
            if path is None:
                return self.send_error(404)
            return self._send(path.read_bytes(), _TYPES.get(path.suffix, "application/octet-stream"))

        def do_POST(self) -> None:
            name, length = self._name(), int(self.headers.get("Content-Length", 0))
            content = self.rfile.read(min(length, _MOST))
            if name == "output":
                query = parse_qs(urlsplit(self.path).query)
                shape = tuple(int(part) for part in query["shape"][0].split("x"))
                board.outputs[query["name"][0]] = np.frombuffer(content, dtype="<f4").reshape(shape)
            elif name == "failure":
                board.failure = content.decode(errors="replace")[:400]
            self._send(b"", "text/plain")
            if name in ("done", "failure"):
                board.done.set()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

        def _name(self) -> str:
            start, _, name = urlsplit(self.path).path.lstrip("/").partition("/")
            return name if start == board.word else ""

        def _send(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
