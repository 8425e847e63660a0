"""The program behind gunicorn: `gunicorn 'ml_backend.wsgi:create()'`, or `dermloop serve`.

The application is imported in the worker, after the fork: onnxruntime's threads do not survive one.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication

from ml_backend.settings import Settings, read_settings
from telemetry import program, tracing

if TYPE_CHECKING:
    from flask import Flask

_REQUEST_THREADS = 32
"""Far more than the models can use: a health check must find one free while many predictions wait their turn."""

_TIMEOUT = 120
_SILENCE_SECONDS = 10


def create() -> Flask:
    """The application for the environment's settings; raises SettingsError where they contradict each other."""
    return _create(read_settings())


def serve(settings: Settings) -> None:
    """Serves until the process is told to stop: one worker that holds the models, restarted by gunicorn if it dies."""
    _Server(settings).run()


def _create(settings: Settings) -> Flask:
    from ml_backend.app import create_app

    program.begin("ml-backend")
    return create_app(settings)


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
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        given: dict[str, Any] = {
            "bind": f"{self._settings.host}:{self._settings.port}",
            "workers": 1,
            "threads": _REQUEST_THREADS,
            "worker_class": "gthread",
            "timeout": _TIMEOUT,
            "graceful_timeout": 20,
            "proc_name": "dermloop-ml",
            "control_socket_disable": True,
            "worker_exit": _release,
            "when_ready": _hurry,
            "logger_class": "telemetry.gunicorn_log.Lines",
        }
        for name, value in given.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return _create(self._settings)
