"""The one door to label-studio-ml, opened without torch even where torch is installed.

Both its contracts import `torch.multiprocessing` if they can, which would cost ten seconds and half a gigabyte.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def _without_torch() -> Iterator[None]:
    hidden: ModuleType | None = sys.modules.get("torch")
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]
        if hidden is not None:
            sys.modules["torch"] = hidden


with _without_torch(), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a dependency of 1.0.9 has escapes that newer Pythons warn of
    from label_studio_ml.model import LabelStudioMLBase


def accepted(base: type, given: dict[str, Any]) -> dict[str, Any]:
    """Those of the given arguments that a base class's constructor takes, whichever contract it follows."""
    known = inspect.signature(base.__init__).parameters  # type: ignore[misc]
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    return {name: value for name, value in given.items() if open_ended or name in known}


__all__ = ["LabelStudioMLBase", "accepted"]
