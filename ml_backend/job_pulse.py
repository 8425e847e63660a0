"""The pulse of a job that somebody works on: kept beside it by its worker, watched by all others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

Beat = Callable[[int], None]
BEATS = 6
"""How often a pulse beats within its lease."""

_ISOLATED_SHARE = 0.8


def owner() -> str:
    """This process among those of all machines: host, process id, and when it began."""
    own = psutil.Process()
    return f"{socket.gethostname()}/{own.pid}/{own.create_time():.2f}"


def is_gone(name: str) -> bool:
    """Whether an owner was a process of this machine that has ended; of other machines nothing is known."""
    host, _, process = name.rpartition("/")[0].rpartition("/")
    if host != socket.gethostname():
        return False
    try:
        return f"{psutil.Process(int(process)).create_time():.2f}" != name.rpartition("/")[2]
    except psutil.NoSuchProcess:
        return True


@contextmanager
def beating(beat: Beat, lease: float, failures: tuple[type[Exception], ...]) -> Iterator[threading.Event]:
    """Beats while the block runs; the event is set once no beat got through for most of the lease.

    From then on others may think the worker dead and begin its job anew, so that its own work has to stop.
    """
    stop, isolated = threading.Event(), threading.Event()

    def run() -> None:
        heard, count = time.monotonic(), 0
        while True:
            try:
                beat(count)
                heard = time.monotonic()
            except failures:
                if time.monotonic() - heard > lease * _ISOLATED_SHARE:
                    isolated.set()
            count += 1
            if stop.wait(lease / BEATS):
                return

    thread = threading.Thread(target=run, name="pulse", daemon=True)
    thread.start()
    try:
        yield isolated
    finally:
        stop.set()
        thread.join()


@dataclass(slots=True)
class Watch:
    """What pulses looked like when they last changed, by this process's own clock."""

    lease: float
    seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def stands_still(self, name: str, pulse: str) -> bool:
        """Whether a pulse has not changed for the lease; the first look only remembers it."""
        before, since = self.seen.get(name, (None, 0.0))
        if pulse != before:
            self.seen[name] = (pulse, time.monotonic())
            return False
        return time.monotonic() - since > self.lease

    def forget_others(self, names: set[str]) -> None:
        """Keeps only what was seen of these."""
        self.seen = {name: entry for name, entry in self.seen.items() if name in names}
