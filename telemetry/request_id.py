"""The id that joins all that is done for one request: the caller's or a new one, carried on, in each log line."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from telemetry import tracing

HEADER = "X-Request-ID"
VARIABLE = "DERMLOOP_REQUEST_ID"
"""How a process learns for whose request it was started."""

_FIT = re.compile(r"[A-Za-z0-9._-]{8,64}")
_current: ContextVar[str] = ContextVar("request_id", default="")


def current() -> str:
    """The id of the request that is being worked on; empty where there is none."""
    return _current.get()


def accepted(given: str | None) -> str:
    """The caller's id where it is 8 to 64 letters, digits, dots, dashes or underscores; a new one otherwise."""
    return given if given and _FIT.fullmatch(given) else uuid.uuid4().hex


@contextmanager
def bound(request_id: str) -> Iterator[str]:
    """The id of all that is done inside the block."""
    token = _current.set(request_id)
    try:
        yield request_id
    finally:
        _current.reset(token)


def outgoing() -> dict[str, str]:
    """Headers for a request to another program of the house: the id and the trace, where there are any."""
    headers = {HEADER: request_id} if (request_id := current()) else {}
    return {**headers, **tracing.outgoing()}


def stamp(request: Any) -> None:
    """Puts these headers on an httpx request; an event hook of its client."""
    for name, value in outgoing().items():
        request.headers.setdefault(name, value)
