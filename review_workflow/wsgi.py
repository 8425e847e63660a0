"""Entry point for gunicorn: `gunicorn review_workflow.wsgi:app`."""

from __future__ import annotations

from review_workflow import settings
from review_workflow.app import create_app
from telemetry import logs, tracing
from telemetry import settings as telemetry_settings

_own = telemetry_settings.read()
logs.configure("review", _own)
tracing.start("review", _own)
app = create_app(settings.read())
