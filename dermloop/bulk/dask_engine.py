"""The one door to Dask: shards handed to the workers of a scheduler, or of a cluster of this machine's own."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dermloop.bulk.choice import Choice
from dermloop.bulk.work import do_shard
from dermloop.errors import BulkError

try:
    from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
except ImportError as error:
    cure = "Run `pip install 'dermloop[dask]'`, here and for every worker."
    raise BulkError("Dask", "not installed", "the packages of the extra `dask`", cure) from error

_PATIENCE_SECONDS = 10
_AGAIN = "Run the same command again: shards that are done stay."


def done(home: Path, name: str, shards: Sequence[int], choice: Choice, threads: int) -> Iterator[str]:
    """What each shard said, as it ends on a worker: empty, or what went wrong in a sentence.

    A shard whose worker dies goes to another one. Raises BulkError where nobody answers at the scheduler's address,
    where it goes away, and for a shard that killed worker after worker.
    """
    with _client(choice) as client:
        given = None if choice.scheduler else threads
        waiting = [client.submit(do_shard, str(home), name, shard, given, pure=False) for shard in shards]
        try:
            for ended in as_completed(waiting, loop=client.loop):
                yield _said(name, ended)
        finally:
            client.cancel(waiting)


def _said(name: str, ended: Future[str]) -> str:
    """What a shard said; raises BulkError where it could say nothing."""
    if ended.status == "error":
        reason = ended.exception()
        if isinstance(reason, KilledWorker):
            raise BulkError(f"run {name}", "a shard whose workers died", "workers that live", _AGAIN)
        return f"{type(reason).__name__} on a worker ({reason})"
    try:
        return str(ended.result())
    except (OSError, CancelledError) as error:
        raise BulkError(f"run {name}", "Dask's scheduler went away", "a scheduler to the end", _AGAIN) from error


@contextmanager
def _client(choice: Choice) -> Iterator[Client]:
    with ExitStack() as stack:
        if not choice.scheduler:
            address = stack.enter_context(_cluster(choice.processes)).scheduler_address
        else:
            address = choice.scheduler
        try:
            client = stack.enter_context(Client(address, timeout=_PATIENCE_SECONDS, set_as_default=False))
        except (OSError, ValueError) as error:
            cure = "Start `dask scheduler` there, or leave the address out for workers on this machine."
            raise BulkError(
                f"scheduler {address}", str(error) or type(error).__name__, "Dask's scheduler", cure
            ) from error
        yield client


@contextmanager
def _cluster(processes: int) -> Iterator[LocalCluster]:
    """A cluster on this machine: reached from nowhere else, its scratch files gone at the end."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            memory_limit=0,
            host="127.0.0.1",
            dashboard_address=":0",
            local_directory=scratch,
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield cluster
