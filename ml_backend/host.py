"""Keeps the champion's pipeline open and follows promotions while requests run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.taxonomy import Taxonomy
from ml_backend.bundle import ModelBundle, champion_version, load_bundle
from ml_backend.errors import BundleError, NoModelError
from ml_backend.pipeline import Pipeline

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class HostState:
    """What the host serves now: a version or None, and why the champion could not be loaded, if so."""

    version: str | None
    error: str | None
    loading: bool


class PipelineHost:
    """Serves the pipeline named by `models/champion.json`, replacing it whole when the pointer moves.

    A caller takes `current()` once for a batch, so that one batch has one version; the replaced pipeline lives on
    until its last batch ends. A champion that cannot be loaded leaves the former one in place.
    """

    def __init__(
        self,
        models: Path,
        taxonomy: Taxonomy | None = None,
        threads: int | None = None,
        opener: Callable[..., Pipeline] = Pipeline.open,
    ) -> None:
        self.models = models
        self._taxonomy = taxonomy
        self._threads = threads
        self._opener = opener
        self._pipeline: Pipeline | None = None
        self._error: str | None = None
        self._refused: str | None = None
        self._settled = threading.Event()
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to follow the champion in the background; returns at once, before anything is loaded."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the following; the pipeline stays usable."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

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
        """Reads the pointer and swaps if it moved; returns when the new champion serves or has been refused."""
        with self._turn:
            try:
                self._swap()
            except BundleError as error:
                self._error = str(error)
                _log.error("champion refused: %s", error)
            self._settled.set()

    def current(self, patience: float = 30.0) -> Pipeline:
        """The pipeline to serve one batch with; waits for the first load, at most so many seconds.

        Raises NoModelError where nothing has been promoted or the champion cannot be loaded.
        """
        if self._thread is not None:
            self._settled.wait(patience)
        if self._pipeline is None:
            self.refresh()
        if self._pipeline is None:
            found = self._error or "no champion"
            raise NoModelError(str(self.models), found, "a promoted bundle", "Train and promote a first model.")
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
            self._stop.wait(POLL_SECONDS)

    def _swap(self) -> None:
        version = champion_version(self.models)
        serving = self._pipeline.bundle.version if self._pipeline else None
        if version is None or version in (serving, self._refused):
            if version == serving:
                self._error = self._refused = None
            return
        self._refused = version
        bundle = load_bundle(self.models / version, self._taxonomy)
        self._pipeline = self._opener(bundle, self._threads)
        self._error = self._refused = None
        _log.info("champion %s serves", version)
