"""Entry point for gunicorn: `gunicorn review_workflow.wsgi:app`."""

from __future__ import annotations

import logging

from review_workflow import settings
from review_workflow.app import create_app

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)
app = create_app(settings.read())
