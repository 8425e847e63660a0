"""gunicorn as every serving program here runs it: one worker that holds the models, many threads that wait for them.

The application is made in the worker, after the fork: onnxruntime's threads do not survive one.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication

from telemetry import tracing

if TYPE_CHECKING:
    from flask import Flask

_REQUEST_THREADS = 32
"""Far more than the models can use: a health check must find one free while many predictions wait their turn."""

_TIMEOUT = 120
_SILENCE_SECONDS = 10


def run(create: Callable[[], Flask], bind: str, name: str) -> None:
    """Serves what `create` makes at `host:port` until the process is told to stop; a worker that dies is replaced."""
    _Server(create, bind, name).run()


def _release(_server: Any, worker: Any) -> None:
    """Stops the threads of a worker before its interpreter ends, so that it ends without an abort."""
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["dermloop"].close()
        tracing.stop()


def _hurry(server: Any) -> None:
    """Lets a caller that falls silent in the middle of a request go; connections inherit it from their listener."""
    for listener in server.LISTENERS:
        patience = struct.pack("ll", _SILENCE_SECONDS, 0)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, create: Callable[[], Flask], bind: str, name: str) -> None:
        self._create = create
        self._bind = bind
        self._name = name
        super().__init__()

    def load_config(self) -> None:
        given: dict[str, Any] = {
            "bind": self._bind,
            "workers": 1,
            "threads": _REQUEST_THREADS,
            "worker_class": "gthread",
            "timeout": _TIMEOUT,
            "graceful_timeout": 20,
            "proc_name": self._name,
            "control_socket_disable": True,
            "worker_exit": _release,
            "when_ready": _hurry,
            "logger_class": "telemetry.gunicorn_log.Lines",
        }
        for name, value in given.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return self._create()
