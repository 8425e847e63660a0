"""The ONNX graph that serves a Keras model, proven against it.

Large weights travel beside the graph while it is converted, which copies all that it holds time and again; onnxruntime
then folds what is constant, batch normalisation behind convolutions above all.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_backend import preprocessing
from ml_backend.onnx_session import Graph
from ml_backend.preprocessing import Floats, Pixels
from training import networks
from training.errors import ParityError
from training.folding import folded
from training.networks import NetworkPlan

_OUTPUTS = ("logits", "cam")
_LARGE = 4096
"""Weights of so many numbers stay outside; smaller ones are constants that the converter may look at."""


def export(shape: NetworkPlan, model: Any, target: Path, golden: Pixels, tolerance: float) -> tuple[Path, float]:
    """The model's ONNX graph at `target` with outputs logits and cam, and its parity on golden crops.

    Raises ParityError where a logit differs by more than the tolerance, relative to the largest.
    """
    serving = networks.serving_graph(shape, model)
    batch = preprocessing.scale_crops(golden, shape.scaling)
    wanted: list[Floats] = [np.asarray(answer) for answer in serving(batch, training=False)]
    _save(folded(_converted(serving, batch.shape[1:])), target)
    found = Graph(target).run(batch)
    scale = max(float(np.abs(wanted[0]).max()), 1e-6)
    gap = float(max(np.abs(a - b).max() for a, b in zip(found, wanted, strict=True))) / scale
    if not gap <= tolerance:
        raise ParityError(target.name, gap, f"a difference of at most {tolerance}", "Export the model again.")
    return target, gap


def _converted(serving: Any, picture: tuple[int, ...]) -> Any:
    """The model as ONNX, its large weights among the initializers."""
    import keras
    import tensorflow as tf
    import tf2onnx

    large = [one for one in serving.variables if np.prod(one.shape) >= _LARGE]
    names = [f"weight_{number}" for number in range(len(large))]
    signature = [tf.TensorSpec((None, *picture), tf.float32, name="pictures")]
    signature += [tf.TensorSpec(one.shape, one.dtype, name=name) for one, name in zip(large, names, strict=True)]

    def answer(pictures: Any, *weights: Any) -> tuple[Any, ...]:
        with keras.StatelessScope(state_mapping=list(zip(large, weights, strict=True))):
            return tuple(serving(pictures, training=False))

    traced = tf.function(answer, input_signature=signature, autograph=False)
    captures = traced.get_concrete_function().graph.captures
    values = {place.name: value.numpy() for value, place in captures if value.dtype != tf.resource}
    values |= {name: np.asarray(one) for one, name in zip(large, names, strict=True)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        found, _ = tf2onnx.convert.from_function(traced, input_signature=signature)
    return _filled(found, values)


def _filled(model: Any, values: Mapping[str, NDArray[Any]]) -> Any:
    """The graph with values in place of those inputs."""
    import onnx

    inputs = list(model.graph.input)
    del model.graph.input[:]
    for one in inputs:
        if one.name in values:
            model.graph.initializer.append(onnx.numpy_helper.from_array(values[one.name], one.name))
        else:
            model.graph.input.append(one)
    return model


def _save(model: Any, path: Path) -> None:
    """Writes the graph, its outputs named logits and cam, in this order, whatever the exporter made of them."""
    import onnx

    by_rank = {len(output.type.tensor_type.shape.dim): output for output in model.graph.output}
    ordered = [by_rank[2], by_rank[4]]
    names = dict(zip((output.name for output in ordered), _OUTPUTS, strict=True))
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for output in ordered:
        output.name = names[output.name]
        output.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.output[:]
    model.graph.output.extend(ordered)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(model)
    onnx.save(model, path)
