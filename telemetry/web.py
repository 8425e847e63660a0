"""What every web application does with every request: an id, a span, a log line, a count."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from typing import Any

from flask import Flask, Response, g, request

from telemetry import logs, request_id, tracing
from telemetry.metrics import Meter

_log = logging.getLogger(__name__)
_UNTOLD = ("/health", "/healthz", "/readyz", "/ready", "/metrics")
"""Asked every few seconds by programs: counted, not logged."""


def observe(app: Flask, meter: Meter) -> None:
    """Gives every request of the application an id, times it, and tells of it; to be called before other hooks."""
    app.before_request(_begin)
    app.after_request(lambda response: _answered(response, meter))
    app.teardown_request(_end)


def _begin() -> None:
    g.telemetry_began = time.perf_counter()
    g.telemetry = ExitStack()
    g.telemetry.enter_context(request_id.bound(request_id.accepted(request.headers.get(request_id.HEADER))))
    g.telemetry.enter_context(tracing.span(f"{request.method} {_route()}", dict(request.headers)))


def _answered(response: Response, meter: Meter) -> Response:
    seconds = time.perf_counter() - g.get("telemetry_began", time.perf_counter())
    response.headers[request_id.HEADER] = request_id.current()
    tracing.tell(status=response.status_code)
    meter.answered(_route(), response.status_code, seconds)
    if _route() not in _UNTOLD:
        facts = logs.told(
            method=request.method, route=_route(), status=response.status_code, ms=round(seconds * 1e3, 1)
        )
        _log.info("answered", extra=facts)
    return response


def _end(_error: Any) -> None:
    if "telemetry" in g:
        g.pop("telemetry").close()


def _route() -> str:
    """The route's pattern, never the address itself: that may carry names."""
    return request.url_rule.rule if request.url_rule else "unknown"
