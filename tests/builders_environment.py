"""The process's environment around a test that runs the command in this process: `dermloop` fills it from the home."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_environment() -> Iterator[None]:
    """Everything as before afterwards."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def own_environment(**given: str) -> Iterator[None]:
    """No variable of dermloop's within but those given; everything as before afterwards."""
    with kept_environment():
        for name in [name for name in os.environ if name.startswith("DERMLOOP_")]:
            del os.environ[name]
        os.environ.update(given)
        yield
