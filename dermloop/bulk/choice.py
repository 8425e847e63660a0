"""Who works off the shards of a run, as somebody chose it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Engine(StrEnum):
    """What hands out shards: this machine, the job queue, or Dask."""

    LOCAL = "local"
    QUEUE = "queue"
    DASK = "dask"


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, how many shards it does at a time on this machine, and the address of Dask's scheduler elsewhere."""

    engine: Engine = Engine.LOCAL
    processes: int = 1
    scheduler: str = ""
