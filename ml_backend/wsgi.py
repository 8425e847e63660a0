"""The program behind gunicorn: `gunicorn 'ml_backend.wsgi:create()'`, or `dermloop serve`."""

from __future__ import annotations

from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from ml_backend.app import create_app
from ml_backend.settings import Settings, read_settings

_REQUEST_THREADS = 8
_TIMEOUT = 120


def create() -> Flask:
    """The application for the environment's settings; raises SettingsError where they contradict each other."""
    return create_app(read_settings())


def serve(settings: Settings) -> None:
    """Serves until the process is told to stop: one worker that holds the models, restarted by gunicorn if it dies."""
    _Server(settings).run()


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
        }
        for name, value in given.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return create_app(self._settings)
