"""Keeps the champion's pipeline open and follows promotions while requests run."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ml_backend import memory
from ml_backend.bundle import ModelBundle
from ml_backend.champions import Champions
from ml_backend.errors import NoModelError, ServingError, StoreError
from ml_backend.pipeline import Pipeline

_log = logging.getLogger(__name__)
_AGAIN_SECONDS = 30.0
"""So long a champion that was refused is left alone; somebody may have mended it meanwhile."""

_JOIN_SECONDS = 10.0
_SERVED_ON = "What was served before is served on."


@dataclass(frozen=True, slots=True)
class HostState:
    """What the host serves now: a version or None, and why that is not the champion, or may not be, if so."""

    version: str | None
    error: str | None
    loading: bool


@dataclass(frozen=True, slots=True)
class _Refusal:
    version: str
    at: float
    reason: str


class PipelineHost:
    """Serves the pipeline of the champion, replacing it whole when another one is named.

    A caller takes `current()` once for a batch, so that one batch has one version; the replaced pipeline lives on
    until its last batch ends. A champion that cannot be loaded, or asked for, leaves the former one in place.
    """

    def __init__(
        self,
        champions: Champions,
        threads: int | None = None,
        opener: Callable[..., Pipeline] = Pipeline.open,
    ) -> None:
        self._champions = champions
        self._threads = threads
        self._opener = opener
        self._pipeline: Pipeline | None = None
        self._error: str | None = None
        self._refused: _Refusal | None = None
        self._settled = threading.Event()
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._leaving: list[weakref.ref[Pipeline]] = []

    def start(self) -> None:
        """Begins to follow the champion in the background; returns at once, before anything is loaded."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the following; the pipeline stays usable."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)

    @property
    def models(self) -> Path:
        """The folder that bundles are loaded from."""
        return self._champions.folder

    @property
    def state(self) -> HostState:
        """What is served now, without waiting."""
        bundle = self.serving
        return HostState(bundle.version if bundle else None, self._error, not self._settled.is_set())

    @property
    def serving(self) -> ModelBundle | None:
        """The bundle that is served now, without waiting."""
        pipeline = self._pipeline
        return pipeline.bundle if pipeline else None

    def refresh(self) -> None:
        """Asks for the champion and swaps if it is another; returns when it serves or has been refused."""
        with self._turn:
            try:
                self._swap()
            except StoreError as error:
                self._serve_on()
                self._tell(f"{error} {_SERVED_ON}" if self._pipeline else str(error))
            except ServingError as error:
                self._tell(str(error))
            self._settled.set()

    def current(self, patience: float = 30.0) -> Pipeline:
        """The pipeline to serve one batch with; waits for the first load, at most so many seconds.

        Raises NoModelError where nothing has been promoted or the champion cannot be loaded.
        """
        if self._thread is not None:
            self._settled.wait(patience)
        if self._pipeline is None and not (self._thread is not None and self._champions.remote):
            self.refresh()
        if self._pipeline is None:
            found = self._error or "no champion"
            raise NoModelError(
                str(self._champions.folder), found, "a promoted bundle", "Train and promote a first model."
            )
        return self._pipeline

    def wait_for(self, version: str, patience: float = 10.0) -> bool:
        """Whether the given version serves, waiting at most so many seconds for it."""
        deadline = time.monotonic() + patience
        while self.state.version != version and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.state.version == version

    def _follow(self) -> None:
        while not self._stop.is_set():
            self.refresh()
            self._reclaim()
            self._stop.wait(self._champions.pause)

    def _reclaim(self) -> None:
        """Gives the memory of replaced pipelines back to the system, once the last batch of each has ended."""
        still = [one for one in self._leaving if one() is not None]
        if len(still) < len(self._leaving):
            memory.give_back()
        self._leaving = still

    def _swap(self) -> None:
        version = self._champions.named()
        if version is None:
            return
        if (refusal := self._refusal_of(version)) is not None:
            self._error = refusal.reason
            return
        if self.serving is None or version != self.serving.version:
            self._open(version)
        self._error = self._refused = None

    def _open(self, version: str) -> None:
        former = self._pipeline
        try:
            self._pipeline = self._opener(self._champions.bring(version), self._threads)
        except StoreError:
            raise
        except ServingError as error:
            self._refused = _Refusal(version, time.monotonic(), str(error))
            raise
        if former is not None:
            self._leaving.append(weakref.ref(former))
        self._champions.settled(version)
        _log.info("champion %s serves", version)

    def _refusal_of(self, version: str) -> _Refusal | None:
        known = self._refused
        recent = known is not None and time.monotonic() - known.at < _AGAIN_SECONDS
        return known if known is not None and known.version == version and recent else None

    def _serve_on(self) -> None:
        """Serves what was served here last, where nothing is yet."""
        if self._pipeline is None and (known := self._champions.remembered()) is not None:
            with contextlib.suppress(ServingError):
                self._open(known)

    def _tell(self, error: str) -> None:
        if error != self._error:
            _log.error("champion not followed: %s", error)
        self._error = error
