"""Tiny real ONNX graphs and pictures for the serving tests: a detector of dark patches, a classifier by colour."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from converters import taxonomy
from converters.taxonomy import Target
from ml_backend.bundle import (
    ClassifierSpec,
    DetectorSpec,
    DetectorTask,
    ModelBundle,
    Scaling,
    set_champion,
    write_bundle,
)

SKIN = (224, 172, 150)
DARK = (70, 40, 30)
_OPSET = [helper.make_opsetid("", 17)]


def dark_detector(path: Path, size: int = 64, score: float = 0.9, segment: bool = False) -> Path:
    """A graph that boxes the dark pixels of the left half and of the right half, each with the given score.

    With `segment` it adds mask coefficients and prototypes as YOLO's segment head does; the first one is darkness.
    """
    columns = np.broadcast_to(np.arange(size, dtype=np.float32), (1, 1, size, size))
    left = (columns < size / 2).astype(np.float32)
    halves = np.concatenate((left, 1 - left), axis=1)
    constants = {
        "x": columns,
        "y": np.swapaxes(columns, 2, 3).copy(),
        "halves": halves,
        "far": np.float32(1e6),
        "one": np.float32(1),
        "two": np.float32(2),
        "limit": np.float32(0.35),
        "steep": np.float32(1e6),
        "zero": np.float32(0),
        "score": np.float32(score),
        "axes": np.array([2, 3], dtype=np.int64),
        "channel": np.array([1], dtype=np.int64),
    }
    n = helper.make_node
    nodes = [
        n("ReduceMean", ["images"], ["mean"], axes=[1], keepdims=1),
        n("Sub", ["limit", "mean"], ["below"]),
        n("Mul", ["below", "steep"], ["sharp"]),
        n("Clip", ["sharp", "zero", "one"], ["dark"]),
        n("Mul", ["dark", "halves"], ["mask"]),
        n("Sub", ["one", "mask"], ["outside"]),
        n("Mul", ["outside", "far"], ["away"]),
        n("Add", ["away", "x"], ["xs"]),
        n("Add", ["away", "y"], ["ys"]),
        n("Sub", ["x", "away"], ["xe"]),
        n("Sub", ["y", "away"], ["ye"]),
        n("ReduceMin", ["xs"], ["x0"], axes=[2, 3], keepdims=0),
        n("ReduceMin", ["ys"], ["y0"], axes=[2, 3], keepdims=0),
        n("ReduceMax", ["xe"], ["x9"], axes=[2, 3], keepdims=0),
        n("ReduceMax", ["ye"], ["y9"], axes=[2, 3], keepdims=0),
        n("Add", ["x9", "one"], ["x1"]),
        n("Add", ["y9", "one"], ["y1"]),
        n("Sub", ["x1", "x0"], ["w"]),
        n("Sub", ["y1", "y0"], ["h"]),
        n("Add", ["x0", "x1"], ["sx"]),
        n("Add", ["y0", "y1"], ["sy"]),
        n("Div", ["sx", "two"], ["cx"]),
        n("Div", ["sy", "two"], ["cy"]),
        n("ReduceSum", ["mask", "axes"], ["total"], keepdims=0),
        n("Clip", ["total", "zero", "one"], ["any"]),
        n("Mul", ["any", "score"], ["p"]),
        *[n("Unsqueeze", [name, "channel"], [name + "_row"]) for name in ("cx", "cy", "w", "h", "p")],
        n("Concat", ["cx_row", "cy_row", "w_row", "h_row", "p_row"], ["output0"], axis=1),
    ]
    outputs: dict[str, list[object]] = {"output0": ["n", 5, 2]}
    if segment:
        nodes = [*nodes[:-1], *_mask_nodes()]
        outputs = {"output1": ["n", 32, size // 4, size // 4], "output0": ["n", 37, 2]}
    return _saved(path, nodes, constants, ("images", ["n", 3, size, size]), outputs)


def _mask_nodes() -> list[onnx.NodeProto]:
    n = helper.make_node
    rows = ["cx_row", "cy_row", "w_row", "h_row", "p_row"]
    return [
        n("Sub", ["p_row", "p_row"], ["none"]),
        n("Add", ["none", "one"], ["full"]),
        n("Concat", [*rows, "full", *["none"] * 31], ["output0"], axis=1),
        n("AveragePool", ["dark"], ["shade"], kernel_shape=[4, 4], strides=[4, 4]),
        n("Div", ["one", "two"], ["half"]),
        n("Sub", ["shade", "half"], ["proto"]),
        n("Sub", ["proto", "proto"], ["blank"]),
        n("Concat", ["proto", *["blank"] * 31], ["output1"], axis=1),
    ]


def colour_classifier(path: Path, classes: int, size: int = 32, weights: NDArray[np.float32] | None = None) -> Path:
    """A graph whose logits and activation map are a linear function of colour, averaged over 4×4 fields."""
    if weights is None:
        weights = np.random.default_rng(classes).normal(0, 2, (3, classes)).astype(np.float32)
    constants = {
        "weights": weights,
        "shape": np.array([-1, 4, size // 4, 4, size // 4, 3], dtype=np.int64),
    }
    n = helper.make_node
    nodes = [
        n("Reshape", ["crops", "shape"], ["fields"]),
        n("ReduceMean", ["fields"], ["colour"], axes=[2, 4], keepdims=0),
        n("MatMul", ["colour", "weights"], ["cam"]),
        n("ReduceMean", ["cam"], ["logits"], axes=[1, 2], keepdims=0),
    ]
    outputs = {"cam": ["n", 4, 4, classes], "logits": ["n", classes]}
    return _saved(path, nodes, constants, ("crops", ["n", size, size, 3]), outputs)


def bundle(
    folder: Path,
    *,
    target: Target = Target.DIAGNOSIS,
    detector: bool = True,
    segment: bool = False,
    classifier: bool = True,
    score: float = 0.9,
    name: str = "tiny",
    champion: bool = True,
    conformal_threshold: float | None = 0.8,
    operating_point: float | None = None,
) -> ModelBundle:
    """A written bundle of the tiny graphs under `folder/models`, promoted unless told otherwise."""
    known = taxonomy.read()
    graphs, models = folder / "graphs", folder / "models"
    graphs.mkdir(parents=True, exist_ok=True)
    classes = known.classes(target)
    task = DetectorTask.SEGMENT if segment else DetectorTask.DETECT
    spec = ClassifierSpec(
        target,
        classes,
        input_size=32,
        scaling=Scaling.UNIT,
        conformal_threshold=conformal_threshold,
        operating_point=operating_point,
    )
    written = write_bundle(
        models,
        name=name,
        taxonomy=known,
        detector=(dark_detector(graphs / "d.onnx", 64, score, segment), DetectorSpec(64, task)) if detector else None,
        classifier=(colour_classifier(graphs / "c.onnx", len(classes)), spec) if classifier else None,
        lineage={"dataset": "test"},
    )
    if champion:
        set_champion(models, written.version)
    return written


def pixels(
    width: int = 160, height: int = 120, patches: tuple[tuple[int, int, int, int], ...] = ((20, 30, 60, 70),)
) -> NDArray[np.uint8]:
    """Skin with dark patches, each (left, top, right, bottom) in pixels."""
    field = np.empty((height, width, 3), dtype=np.uint8)
    field[:] = SKIN
    for x0, y0, x1, y1 in patches:
        field[y0:y1, x0:x1] = DARK
    return field


def encoded(array: NDArray[np.uint8] | Image.Image, form: str = "PNG", **options: object) -> bytes:
    """An array or picture as the bytes of a file."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _saved(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, object],
    source: tuple[str, list[object]],
    outputs: dict[str, list[object]],
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(source[0], TensorProto.FLOAT, source[1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=_OPSET, ir_version=10), path)
    return path
