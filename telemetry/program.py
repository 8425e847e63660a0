"""How a program begins to tell of itself, and ends: log lines in the form of the settings, and traces where they go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from telemetry import logs, settings, tracing
from telemetry.settings import TelemetrySettings


def begin(name: str) -> TelemetrySettings:
    """The settings of the environment, which this process keeps to from now on; raises TelemetryError."""
    own = settings.read()
    logs.configure(name, own)
    tracing.start(name, own)
    return own


@contextmanager
def telling(name: str) -> Iterator[TelemetrySettings]:
    """The same for the time of a block, at whose end the last traces are sent."""
    own = begin(name)
    try:
        yield own
    finally:
        tracing.stop()
