"""What can be measured of the running service, in Prometheus' words; no picture, name or token is ever a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100)


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "dermloop_request_seconds",
            "Time to answer",
            ("route", "status"),
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._pictures = Counter(
            "dermloop_pictures", "Pictures by what became of them", ("outcome",), registry=self._registry
        )
        self._lesions = Counter("dermloop_lesions", "Lesions found", registry=self._registry)
        self._ready = Gauge("dermloop_ready", "1 where a champion serves", registry=self._registry)
        self._model = Gauge("dermloop_model_info", "The serving version", ("version",), registry=self._registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Counts one answered request."""
        self._seconds.labels(route, str(status)).observe(seconds)

    def analysed(self, lesions: int | None) -> None:
        """Counts one picture with so many lesions, or one that failed (None)."""
        self._pictures.labels("failed" if lesions is None else "analysed").inc()
        self._lesions.inc(lesions or 0)

    def page(self, version: str | None) -> bytes:
        """The metrics page, with the version that serves now."""
        self._ready.set(version is not None)
        self._model.clear()
        if version is not None:
            self._model.labels(version).set(1)
        return generate_latest(self._registry)
