"""Entry point for gunicorn: the review service with the house's job queue on its training page."""

from __future__ import annotations

from dermloop.review_jobs import QueueJobs
from ml_backend.jobs import JobQueue
from ml_backend.settings import read_settings as read_serving_settings
from review_workflow import settings
from review_workflow.training_jobs import EXTENSION
from review_workflow.wsgi import app

_home = settings.read().home
app.extensions[EXTENSION] = QueueJobs(JobQueue.open(read_serving_settings(home=_home).jobs_address), _home)

__all__ = ["app"]
