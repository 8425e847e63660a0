"""The one door to onnxruntime: a graph opened on the processor, with its digest already checked by the bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ml_backend.errors import BundleError, InferenceError

_FATAL = 4
_SPIN_MICROSECONDS = "100"
"""How long a thread watches for the next part of a graph before it sleeps: waking it costs more than most parts take,
but where other programs want the processor, endless watching takes it from them and from ourselves."""


class Graph:
    """An ONNX graph ready to run; `run` may be called from several threads."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own unnamed classes
            raise BundleError(
                str(path), type(error).__name__, "a graph onnxruntime can load", "Export again."
            ) from error
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, batch: NDArray[np.float32], first: str = "") -> tuple[NDArray[np.float32], ...]:
        """The graph's outputs for one batch: the one called `first` where there is such, then the others in order.

        Raises InferenceError where the graph fails on it.
        """
        names = sorted(self._outputs, key=lambda name: name != first)
        try:
            found: list[Any] = self._session.run(names, {self._input: batch})
        except Exception as error:  # onnxruntime raises its own unnamed classes
            name = type(error).__name__
            raise InferenceError(
                "model graph", name, f"an input of shape {batch.shape}", "Check the bundle."
            ) from error
        return tuple(found)
