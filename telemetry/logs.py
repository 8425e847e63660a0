"""Log lines for people or for programs: each with the request's id, none with a picture, a token or a patient."""

from __future__ import annotations

import json
import logging
import re
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from converters.errors import DesignedError
from telemetry import request_id, tracing
from telemetry.settings import LogFormat, TelemetrySettings

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = 2000
_FRAMES = 12
_SECRETS = (
    (re.compile(r"(\w+://)[^/\s@]+@"), r"\1…@"),
    (re.compile(r"(\w+://[^\s?'\"]+|/data/[^\s?'\"]+)\?[^\s'\"]+"), r"\1?…"),
    (re.compile(r"(?i)\b(bearer|token|basic)\s+[A-Za-z0-9+/._=-]{8,}"), r"\1 …"),
    (
        re.compile(r"(?i)\b(password|passwd|secret|token|api_key|signature)(['\"]?\s*[=:]\s*['\"]?)[^\s'\",;)}]+"),
        r"\1\2…",
    ),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+"), "…"),
    (re.compile(r"\b[\w.+-]+@[\w-]+(\.[\w-]+)+"), "<e-mail>"),
    (
        re.compile(r"(?i)\b(patient(?:_id)?)(['\"]?\s*[=:]?\s*['\"]?)(?!_|id\b|s\b|and\b|who\b)[\w.-]*\d[\w.-]*"),
        r"\1\2…",
    ),
    (re.compile(r"data:image/[\w.+-]+;base64,[A-Za-z0-9+/=]+"), "<picture>"),
    (re.compile(r"[A-Za-z0-9+/]{120,}={0,2}"), "<bytes>"),
)
_QUIET = ("httpx", "httpcore", "alembic", "urllib3", "botocore", "boto3", "PIL")


def configure(program: str, settings: TelemetrySettings) -> None:
    """Lets this process write its log lines to standard error, in the form of the settings."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(program, settings))
    logging.basicConfig(level=settings.log_level.value, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def formatter(program: str, settings: TelemetrySettings) -> logging.Formatter:
    """What writes a line in the form of the settings."""
    return JsonLines(program) if settings.log_format is LogFormat.JSON else TextLines()


def told(**facts: str | int | float | bool | None) -> Mapping[str, Any]:
    """Facts for the `extra` of a log call: fields of their own in JSON, `name=value` in text."""
    return {"facts": facts}


def clean(text: str) -> str:
    """The text without logins, tokens, signatures, e-mail addresses, patient numbers and pictures."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"


class JsonLines(logging.Formatter):
    """One JSON object a line: moment, weight, program, request id, message, facts, and where an error came from."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "program": self._program,
            "logger": record.name,
            "request_id": request_id.current() or None,
            "trace_id": tracing.trace_id() or None,
            "message": clean(record.getMessage()),
            **_facts(record),
            **_failure(record),
        }
        return json.dumps({name: value for name, value in row.items() if value is not None}, ensure_ascii=False)


class TextLines(logging.Formatter):
    """One line of text, and indented lines below it for an error."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S")
        words = [moment, record.levelname, record.name, clean(record.getMessage())]
        words += [f"{name}={value}" for name, value in _facts(record).items() if value is not None]
        words += [f"[{request_id.current()}]"] if request_id.current() else []
        failure = _failure(record)
        below = [str(failure["error"]), *failure["at"]] if failure else []
        return "\n    ".join((" ".join(words), *below))


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    facts = getattr(record, "facts", {})
    return {name: clean(value) if isinstance(value, str) else value for name, value in facts.items()}


def _failure(record: logging.LogRecord) -> dict[str, Any]:
    """An error by its kind and place; its words only where they are ours: a library's may quote what it was given."""
    if not record.exc_info or record.exc_info[1] is None:
        return {}
    error, trace = record.exc_info[1], record.exc_info[2]
    words = f"{type(error).__name__}: {clean(str(error))}" if isinstance(error, DesignedError) else type(error).__name__
    return {"error": words, "at": _places(trace)}


def _places(trace: TracebackType | None) -> list[str]:
    return [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(trace)[-_FRAMES:]]
