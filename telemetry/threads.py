"""Threads that work for the request which gave them the work: its id and its trace go along."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class CarryingThreads(ThreadPoolExecutor):
    """A pool of threads; each piece of work sees the request id and the trace of whoever submitted it."""

    def submit(self, work: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """The future result of the work."""
        context = contextvars.copy_context()
        return super().submit(lambda: context.run(work, *args, **kwargs))
