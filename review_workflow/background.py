"""The thread that keeps the review in step with Label Studio: hints at once, the full pass on a timer."""

from __future__ import annotations

import logging
import threading
import time

from review_workflow.errors import BusyError, ReviewError
from review_workflow.service import ReviewService
from review_workflow.sync import SyncReport
from telemetry import logs, request_id

log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_ORDER_SECONDS = 30.0
_BREATH = 1.0
"""Pause of an order that has further to go, in which answers are taken in."""
_FULL_SECONDS = 3600.0
"""How often every answered task is looked at again, whatever the clocks say."""


class Background:
    """Follows hints as they come and reconciles every `seconds`; several processes may run one each (by lease)."""

    def __init__(self, service: ReviewService, seconds: float) -> None:
        self._service = service
        self._seconds = seconds
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="review-sync", daemon=True)
        self._cause = ""
        self.last_error = ""

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the thread after what it is doing."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout)

    def nudge(self, cause: str = "") -> None:
        """Says that there is something to do now, because of the request with this id."""
        self._cause = cause
        self._wake.set()

    def _run(self) -> None:
        due, full = time.monotonic(), time.monotonic() + _FULL_SECONDS
        order = time.monotonic() + _ORDER_SECONDS
        while not self._stop.is_set():
            cause, self._cause = self._cause, ""
            with request_id.bound(request_id.accepted(cause)):
                try:
                    self._service.refusals.flush()
                    if time.monotonic() >= full:
                        _tell("looked at everything", self._service.sync(full=True))
                        full = time.monotonic() + _FULL_SECONDS
                    elif time.monotonic() >= order:
                        order = time.monotonic() + _ORDER_SECONDS
                        report = self._service.order()
                        _tell("ordered the queues", report)
                        order = time.monotonic() + _BREATH if report.more else order
                    elif time.monotonic() >= due:
                        _tell("reconciled", self._service.sync())
                        due = time.monotonic() + self._seconds
                    else:
                        _tell("followed webhooks", self._service.follow_hints())
                    self.last_error = ""
                except BusyError:
                    log.debug("another process is in charge")
                except ReviewError as error:
                    self._complain(str(error))
                    due = time.monotonic() + self._seconds
                except Exception as error:  # noqa: BLE001 - the thread must outlive anything; it is shown
                    self._complain(f"{type(error).__name__}: {error}")
                    due = time.monotonic() + self._seconds
            self._wake.wait(min(_LOOK_SECONDS, self._seconds))
            self._wake.clear()

    def _complain(self, error: str) -> None:
        if error != self.last_error:
            log.warning("%s", error)
        self.last_error = error


def _tell(what: str, report: SyncReport) -> None:
    """Logs a pass that did something."""
    if report.counted or report.refused or report.delivered:
        facts = logs.told(counted=report.counted, refused=report.refused, delivered=report.delivered)
        log.info(what, extra=facts)
