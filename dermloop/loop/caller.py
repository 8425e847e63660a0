"""A client that keeps calling the backend's `/predict` while a model is swapped, and remembers every answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import requests

_PAUSE_SECONDS = 0.25
_TIMEOUT_SECONDS = 100


@dataclass(frozen=True, slots=True)
class CallReport:
    """How many calls were made, what failed (a sentence each), and the model versions in order of first answer."""

    calls: int = 0
    failures: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


@dataclass
class SteadyCaller:
    """Calls `/predict` with one task, again and again, from entering the context to leaving it."""

    url: str
    auth: tuple[str, str] | None
    task: Mapping[str, Any]
    label_config: str
    _stop: threading.Event = field(default_factory=threading.Event)
    _calls: int = 0
    _failures: list[str] = field(default_factory=list)
    _versions: dict[str, None] = field(default_factory=dict)

    def __enter__(self) -> SteadyCaller:
        self._thread = threading.Thread(target=self._run, name="steady caller", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_TIMEOUT_SECONDS)

    @property
    def report(self) -> CallReport:
        """What has been seen so far."""
        return CallReport(self._calls, tuple(self._failures), tuple(self._versions))

    def _run(self) -> None:
        body = {"tasks": [dict(self.task)], "label_config": self.label_config, "project": "1.1", "params": {}}
        with requests.Session() as session:
            session.auth = self.auth
            while not self._stop.wait(_PAUSE_SECONDS):
                self._call(session, body)

    def _call(self, session: requests.Session, body: Mapping[str, Any]) -> None:
        self._calls += 1
        try:
            response = session.post(f"{self.url}/predict", json=body, timeout=_TIMEOUT_SECONDS)
            response.raise_for_status()
            version = response.json()["results"][0]["model_version"]
        except (requests.RequestException, ValueError, LookupError, TypeError) as error:
            self._failures.append(f"call {self._calls}: {type(error).__name__}: {error}")
        else:
            self._versions.setdefault(str(version))
