"""Settings for gunicorn: `gunicorn --config python:telemetry.gunicorn_config …`.

Log lines in the form of ours, and metrics added up where there are several processes. prometheus-client reads the
folder's name when it is imported, so nothing here imports it before the processes are there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from telemetry.settings import MULTIPROCESS

logger_class = "telemetry.gunicorn_log.Lines"
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Names a folder for the counts of several processes, before any of them starts."""
    if server.cfg.workers > 1 and not os.environ.get(MULTIPROCESS):
        os.environ[MULTIPROCESS] = tempfile.mkdtemp(prefix="dermloop-metrics-")


def on_exit(server: Any) -> None:
    """Removes that folder."""
    if server.cfg.workers > 1 and "dermloop-metrics-" in (folder := os.environ.get(MULTIPROCESS, "")):
        shutil.rmtree(folder, ignore_errors=True)


def child_exit(_server: Any, worker: Any) -> None:
    """Lets go of the gauges of a process that ended; what it counted stays in the sums."""
    if os.environ.get(MULTIPROCESS):
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
