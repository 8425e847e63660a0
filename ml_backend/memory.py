"""The one door to the C library's allocator: memory that was freed goes back to the system when it is asked to."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


def give_back() -> None:
    """Returns freed memory to the system; without glibc nothing happens.

    Opening a graph frees as much as its weights take, and so does leaving one: kept for later use, it would count as
    the process's own for ever.
    """
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    try:
        found: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return lambda _kept: None
    return found
