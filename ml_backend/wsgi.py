"""The program behind gunicorn: `gunicorn 'ml_backend.wsgi:create()'`, or `dermloop serve`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ml_backend import server
from ml_backend.settings import Settings, read_settings
from telemetry import program

if TYPE_CHECKING:
    from flask import Flask


def create() -> Flask:
    """The application for the environment's settings; raises SettingsError where they contradict each other."""
    return _create(read_settings())


def serve(settings: Settings) -> None:
    """Serves until the process is told to stop."""
    server.run(functools.partial(_create, settings), f"{settings.host}:{settings.port}", "dermloop-ml")


def _create(settings: Settings) -> Flask:
    from ml_backend.app import create_app

    program.begin("ml-backend")
    return create_app(settings)
