"""What can be measured of the running service, in Prometheus' words; no picture, name or token is ever a label."""

from __future__ import annotations

from ml_backend.host import HostState
from ml_backend.service import Analysis
from telemetry import catalogue
from telemetry.metrics import Meter, State


class Metrics:
    """The counts of one application."""

    def __init__(self) -> None:
        self.meter = Meter(catalogue.PICTURES, catalogue.LESIONS, catalogue.LESION_SCORE)
        for outcome in ("analysed", "failed"):
            self.meter.begin(catalogue.PICTURES, outcome)

    def analysed(self, found: Analysis) -> None:
        """Counts the pictures by what became of them, their lesions, and the scores by the version that gave them."""
        for outcome in found.outcomes:
            lesions = outcome.prediction.lesions if outcome.prediction is not None else ()
            self.meter.count(catalogue.PICTURES, "failed" if outcome.prediction is None else "analysed")
            self.meter.count(catalogue.LESIONS, by=len(lesions))
            for lesion in lesions:
                if lesion.score is not None:
                    self.meter.observe(catalogue.LESION_SCORE, lesion.score, found.bundle.version)

    def page(self, now: HostState) -> bytes:
        """The metrics page, with the version that serves now and whether it is the champion."""
        serving = [State(catalogue.MODEL, 1, (now.version,))] if now.version is not None else []
        states = (State(catalogue.READY, now.version is not None), State(catalogue.FOLLOWED, now.error is None))
        return self.meter.page([*states, *serving])
