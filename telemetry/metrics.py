"""Counts and states for Prometheus, right in one process and in many behind one port. The one door to its client.

What a process counts is added up over the processes of one server (`PROMETHEUS_MULTIPROC_DIR`); what is a state of the
house is asked for when somebody looks, so that no process shows an old one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector

from telemetry.catalogue import REQUEST_SECONDS, Kind, Metric
from telemetry.settings import MULTIPROCESS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class State:
    """The value of a metric at this moment, for these label values."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


class Meter:
    """What one program counts."""

    def __init__(self, *metrics: Metric) -> None:
        self._registry = CollectorRegistry()
        self._counters: dict[Metric, Counter] = {}
        self._histograms: dict[Metric, Histogram] = {}
        for metric in (REQUEST_SECONDS, *metrics):
            self._declare(metric)

    def _declare(self, metric: Metric) -> None:
        if metric.kind is Kind.HISTOGRAM:
            self._histograms[metric] = Histogram(
                metric.name, metric.about, metric.labels, registry=self._registry, buckets=metric.buckets
            )
        else:
            self._counters[metric] = Counter(metric.name, metric.about, metric.labels, registry=self._registry)

    def begin(self, metric: Metric, *labels: str) -> None:
        """Shows a metric as 0 for these labels: Prometheus sees no rise in what appears with its first count."""
        (self._counters.get(metric) or self._histograms[metric]).labels(*labels)

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Counts so many more."""
        counter = self._counters[metric]
        (counter.labels(*labels) if labels else counter).inc(by)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Counts one more in the step that the value falls into."""
        histogram = self._histograms[metric]
        (histogram.labels(*labels) if labels else histogram).observe(value)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Counts one answered request."""
        self.observe(REQUEST_SECONDS, seconds, route, str(status))

    def page(self, states: Iterable[State] = ()) -> bytes:
        """The page for Prometheus: all counts, and these states."""
        shown = CollectorRegistry()
        shown.register(_Asked(tuple(states)))
        if os.environ.get(MULTIPROCESS):
            MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
            return bytes(generate_latest(shown))
        return bytes(generate_latest(self._registry)) + bytes(generate_latest(shown))


class _Asked:
    """States in the client's own words."""

    def __init__(self, states: tuple[State, ...]) -> None:
        self._states = states

    def collect(self) -> Iterator[Family]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for state in self._states:
            metric = state.metric
            kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
            family = families.setdefault(metric.name, kind(metric.name, metric.about, labels=metric.labels))
            family.add_metric(list(state.labels), state.value)
        yield from families.values()
