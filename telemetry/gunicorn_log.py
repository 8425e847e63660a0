"""gunicorn's own log lines in the form of ours."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.glogging import Logger

from telemetry import settings
from telemetry.logs import formatter


class Lines(Logger):  # type: ignore[misc]
    """gunicorn's logger, writing as the settings of the environment say."""

    def setup(self, cfg: Any) -> None:
        """Prepares gunicorn's handlers and gives them our form."""
        super().setup(cfg)
        for handler in logging.getLogger("gunicorn.error").handlers:
            handler.setFormatter(formatter(cfg.proc_name, settings.read()))
