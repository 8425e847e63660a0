"""How every program logs, measures and traces; read once from the environment (`DERMLOOP_…`)."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from telemetry.errors import TelemetryError

_PREFIX = "DERMLOOP_"
_SECRET = ("TOKEN", "SECRET", "PASSWORD", "URL")
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder in which the processes of one server share their counts; prometheus-client's own variable."""


class LogFormat(StrEnum):
    """How a log line looks: for people, or for a program that collects them."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """From which weight on a line is written."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class TelemetrySettings(BaseSettings):
    """Settings of logs, metrics and traces, the same for every program."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    log_format: LogFormat = Field(LogFormat.TEXT, description="`json` writes one JSON object a line")
    log_level: LogLevel = Field(LogLevel.INFO, description="from which weight on a line is written")
    traces: str = Field("", description="OTLP/HTTP address that takes traces, such as http://collector:4318/v1/traces")
    trace_share: float = Field(1.0, ge=0, le=1, description="share of requests that are traced")
    worker_metrics: str = Field("", description="where the worker gives out /metrics, such as 127.0.0.1:9092")


def read() -> TelemetrySettings:
    """The settings of the environment; raises TelemetryError naming the malformed variable."""
    try:
        return TelemetrySettings()
    except ValidationError as error:
        raise TelemetryError(*malformed(error, _PREFIX)) from None


def malformed(error: ValidationError, prefix: str) -> tuple[str, str, str, str]:
    """The four parts of the sentence on the first malformed variable; one that may hold a secret is not quoted."""
    first = error.errors(include_url=False)[0]
    name = prefix + "_".join(str(part) for part in first["loc"]).upper()
    value = "a malformed value" if any(word in name for word in _SECRET) else str(first.get("input"))
    return name, value, str(first["msg"]), "Correct the variable."
