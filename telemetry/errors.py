"""What can go wrong while a program begins to tell of itself."""

from __future__ import annotations

from converters.errors import DesignedError


class TelemetryError(DesignedError):
    """A setting of logs, metrics or traces that cannot be kept; the program does not start."""
