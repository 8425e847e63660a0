"""Entry point for gunicorn: `gunicorn review_workflow.wsgi:app`."""

from __future__ import annotations

from review_workflow import settings
from review_workflow.app import create_app
from telemetry import program

program.begin("review")
app = create_app(settings.read())
