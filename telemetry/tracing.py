"""Traces by OpenTelemetry: nothing at all until `start` is told where they go. The one door to its packages.

Spans are made by hand at the few places where a program waits for another. The libraries that make them by themselves
write whole addresses into them, and ours carry keys, file names and signatures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from telemetry.errors import TelemetryError
from telemetry.settings import TelemetrySettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_PARENT = "traceparent"
VARIABLE = "DERMLOOP_TRACEPARENT"
"""How a process learns of which trace it is a part."""

Fact = str | int | float | bool


class _Running:
    """The tracer of this process, where one was started; logging's handlers are a process' own in the same way."""

    tracer: Tracer | None = None
    provider: TracerProvider | None = None


def start(program: str, settings: TelemetrySettings) -> None:
    """Sends traces to the settings' address from now on; nothing happens where it is empty.

    Raises TelemetryError where OpenTelemetry is not installed.
    """
    if not settings.traces or _Running.provider is not None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ImportError as error:
        cure = "Install it: pip install 'dermloop[tracing]'."
        raise TelemetryError("DERMLOOP_TRACES", str(error), "OpenTelemetry's packages", cure) from error
    resource = Resource.create({"service.name": f"dermloop-{program}"})
    provider = TracerProvider(resource=resource, sampler=ParentBasedTraceIdRatio(settings.trace_share))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.traces)))
    _Running.provider, _Running.tracer = provider, provider.get_tracer("dermloop")


def stop() -> None:
    """Sends what is left and traces no more."""
    provider, _Running.provider, _Running.tracer = _Running.provider, None, None
    if provider is not None:
        provider.shutdown()


@contextmanager
def span(name: str, headers: Mapping[str, str] | None = None, **facts: Fact) -> Iterator[None]:
    """Times what happens inside the block, as part of the trace in `headers` or of the one that is running."""
    if _Running.tracer is None:
        yield
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = (
        TraceContextTextMapPropagator().extract({name.lower(): value for name, value in headers.items()})
        if headers
        else None
    )
    with _Running.tracer.start_as_current_span(name, context, attributes=facts, record_exception=False):
        yield


def tell(**facts: Fact) -> None:
    """Adds facts to the span that is running."""
    if _Running.tracer is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(facts)


def outgoing() -> dict[str, str]:
    """The header that lets another program go on with this trace; empty where none is running."""
    if _Running.tracer is None:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier


def parent() -> str:
    """The running span in the words of W3C's trace context; empty where none is running."""
    return outgoing().get(_PARENT, "")


def trace_id() -> str:
    """The id of the running trace in hexadecimal; empty where none is running."""
    return "".join(parent().split("-")[1:2])


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Headers that go on with the trace that a process was started in."""
    return {_PARENT: found} if (found := environment.get(VARIABLE)) else {}
