"""Computes once what is constant in an ONNX graph, by onnxruntime's own optimizer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any


def folded(model: Any) -> Any:
    """The graph with constants folded and normalisation inside convolutions, by standard operators alone."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        draft, target = Path(folder) / "draft.onnx", Path(folder) / "folded.onnx"
        onnx.save(model, draft)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(draft), options, providers=["CPUExecutionProvider"])
        found = onnx.load(target)
    spoken = {node.domain for node in found.graph.node}
    versions = [one for one in found.opset_import if one.domain in spoken]
    del found.opset_import[:]
    found.opset_import.extend(versions)
    del found.metadata_props[:]
    found.metadata_props.extend(model.metadata_props)
    return found
