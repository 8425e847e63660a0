"""The pending shards of a run worked off: in this process, in others beside it, or by the workers of Dask.

Which shards are done is read from the run's folder alone, so any engine goes on with what another one began.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process

from dermloop.bulk.choice import Choice, Engine
from dermloop.bulk.plan import Plan
from dermloop.bulk.work import do_shard, worker
from dermloop.errors import BulkError
from ml_backend.settings import Settings

Tell = Callable[[str, int, int], None]
AGAIN = "Cure it and run the same command again: shards that are done stay."


def work_off(settings: Settings, plan: Plan, choice: Choice, tell: Tell) -> None:
    """Does every pending shard of a run; raises BulkError where one fails, after which the others may be done or not.

    `tell` is told of what, how many, and of how many.
    """
    pending = plan.pending()
    if not pending:
        return
    if choice.engine is Engine.DASK:
        from dermloop.bulk import dask_engine

        done = dask_engine.done(settings.home, plan.name, pending, choice, threads_each(choice.processes))
    elif choice.processes == 1:
        _here(settings, plan, pending, tell)
        return
    else:
        done = _beside(settings, plan, pending, choice.processes)
    for number, sentence in enumerate(done, start=1):
        if sentence:
            raise BulkError(f"run {plan.name}", sentence, "shards that can be done", AGAIN)
        tell("Shards:", number, len(pending))


def threads_each(processes: int) -> int:
    """How many threads each of so many processes may have on this machine."""
    return max(1, (os.cpu_count() or 1) // processes)


def _here(settings: Settings, plan: Plan, pending: tuple[int, ...], tell: Tell) -> None:
    with worker(settings) as own:
        for number, shard in enumerate(pending, start=1):
            own.do(plan, shard, partial(tell, f"Shard {number} of {len(pending)}:"))


def _beside(settings: Settings, plan: Plan, pending: tuple[int, ...], processes: int) -> Iterator[str]:
    """What each shard said, as it ends in one of so many processes; raises BulkError where one was killed."""
    count = min(processes, len(pending))
    given = str(settings.home), plan.name
    with ProcessPoolExecutor(count, get_context("spawn"), initializer=_end_with_parent) as pool:
        waiting = [pool.submit(do_shard, *given, shard, threads_each(count)) for shard in pending]
        try:
            for ended in as_completed(waiting):
                yield ended.result()
        except BrokenProcessPool as error:
            raise BulkError(f"run {plan.name}", "a process was killed", "processes that end", AGAIN) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Has this process end when the one that started it was killed."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
