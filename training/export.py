"""Other forms of a bundle: INT8 ONNX as a bundle of its own; SavedModel, TFLite, TensorFlow.js and the web, proven."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from converters.dataset import DatasetVersion, Split
from ml_backend import bundle as bundles
from ml_backend import preprocessing
from ml_backend.bundle import ModelBundle
from ml_backend.onnx_session import Graph
from ml_backend.preprocessing import Floats, Pixels
from training import browser, datasets, networks, toolbox
from training.errors import DataError, ParityError
from training.networks import NetworkPlan

_CALIBRATION_IMAGES = 48
_GOLDEN = 8


class Form(StrEnum):
    """Forms of the classifier besides the bundle's own ONNX graph; `onnx-web` is that graph itself in a browser."""

    SAVED_MODEL = "saved-model"
    TFLITE = "tflite"
    TFLITE_DYNAMIC = "tflite-dynamic"
    TFJS = "tfjs"
    ONNX_WEB = "onnx-web"


TOLERANCES = {
    Form.SAVED_MODEL: 1e-4,
    Form.TFLITE: 1e-4,
    Form.TFLITE_DYNAMIC: 0.1,
    Form.TFJS: 1e-4,
    Form.ONNX_WEB: 1e-4,
}
"""Largest difference from the served ONNX graph on golden images, relative to the largest answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """The images that every form must answer alike: lesion crops (N, S, S, 3), squares (N, S, S, 3) or None."""

    crops: Pixels
    squares: Pixels | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """Where an export lies, its size in bytes, its largest relative difference on the golden images, and the limit."""

    form: Form
    path: Path
    size: int
    gap: float
    tolerance: float


def golden_images(bundle: ModelBundle, version: DatasetVersion) -> Golden:
    """The first eight gradable images of a version's validation split (of all where that has none), as served.

    Raises DataError where none of them has a lesion.
    """
    items = list(datasets.gradable(version.dataset.only(Split.VAL) or version.dataset.items))[:_GOLDEN]
    pictures = [(datasets.read_decoded(version, item), item.truth.lesions) for item in items]
    squares = crops = None
    if bundle.detector is not None:
        size = bundle.detector.input_size
        squares = np.stack([preprocessing.letterbox(image.pixels, size)[0] for image, _ in pictures])
    if bundle.classifier is not None:
        spec = bundle.classifier
        crops = [
            preprocessing.crop_lesion(image.pixels, image.to_pixels(lesion.box), spec.crop_padding, spec.input_size)
            for image, lesions in pictures
            for lesion in lesions
        ][:_GOLDEN]
        if not crops:
            raise DataError("golden images", 0, "a lesion on one of them", "Name a larger dataset.")
    return Golden(np.stack(crops) if crops else np.zeros((0, 1, 1, 3), np.uint8), squares)


def int8_bundle(bundle: ModelBundle, version: DatasetVersion, models: Path, work: Path) -> ModelBundle:
    """A bundle of the same stages with 8-bit weights and activations, calibrated on the version's training images.

    Its cost in accuracy is for the evaluation to tell: it is a version like any other, and goes through the gate.
    """
    work.mkdir(parents=True, exist_ok=True)
    items = list(datasets.gradable(version.dataset.only(Split.TRAIN)))[:_CALIBRATION_IMAGES]
    if not items:
        raise DataError("calibration images", 0, "gradable training images", "Freeze a larger dataset.")
    images = [(datasets.read_decoded(version, item), item) for item in items]
    detector = classifier = None
    if bundle.detector is not None:
        size = bundle.detector.input_size
        squares = [preprocessing.letterbox(image.pixels, size)[0] for image, _ in images]
        batches = [preprocessing.detector_input([square]) for square in squares]
        detector = (_quantised(bundle.detector_path, work / "detector-int8.onnx", batches), bundle.detector)
    if bundle.classifier is not None:
        spec = bundle.classifier
        crops = [
            preprocessing.crop_lesion(image.pixels, image.to_pixels(lesion.box), spec.crop_padding, spec.input_size)
            for image, item in images
            for lesion in item.truth.lesions
        ]
        batches = [preprocessing.scale_crops(crop[None], spec.scaling) for crop in crops]
        classifier = (_quantised(bundle.classifier_path, work / "classifier-int8.onnx", batches), spec)
    lineage = {**bundle.lineage, "parent": bundle.version, "precision": "int8", "calibration": version.digest}
    return bundles.write_bundle(
        models,
        name=f"{bundle.name}-int8",
        taxonomy=bundle.taxonomy,
        detector=detector,
        classifier=classifier,
        lineage=lineage,
    )


def export_form(
    bundle: ModelBundle, form: Form, target: Path, golden: Golden, checkpoint: Path | None, tools: Path
) -> Exported:
    """A bundle in another form at `target`, proven on golden images against the graphs that are served.

    All but `onnx-web` are the classifier alone, made from its Keras checkpoint. Raises DataError without one,
    ParityError where an answer differs by more than the form's tolerance, ToolError where a tool is missing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    gap = _web_gap(bundle, target, golden, tools) if form is Form.ONNX_WEB else 0.0
    if form is not Form.ONNX_WEB:
        spec = bundle.classifier
        if spec is None or checkpoint is None or not checkpoint.is_file():
            cure = "Export where it was trained."
            raise DataError(f"{form} export", str(checkpoint), "the classifier's checkpoint", cure)
        batch = preprocessing.scale_crops(golden.crops, spec.scaling)
        wanted = Graph(bundle.classifier_path).run(batch, "logits")[0]
        gap = _gap(_written(checkpoint, form, target, batch, tools), wanted)
    if not gap <= TOLERANCES[form]:
        raise ParityError(f"{form} export", gap, f"at most {TOLERANCES[form]}", "Serve the ONNX graph.")
    return Exported(form, target, _size(target), gap, TOLERANCES[form])


def opset(graph: Path) -> int:
    """The version of ONNX' operators that a graph is written in."""
    import onnx

    return int(max(one.version for one in onnx.load(graph, load_external_data=False).opset_import if not one.domain))


def _written(checkpoint: Path, form: Form, target: Path, batch: Floats, tools: Path) -> Floats:
    """Writes a form of the classifier and returns the logits that it answers by itself."""
    shape = networks.read_plan(checkpoint)
    model = _serving_model(shape, checkpoint)
    if form is Form.SAVED_MODEL:
        model.export(str(target), format="tf_saved_model", verbose=False)
        return _saved_model_logits(target, batch)
    if form is Form.TFJS:
        with tempfile.TemporaryDirectory() as work:
            model.export(work, format="tf_saved_model", verbose=False)
            toolbox.convert_to_tfjs(Path(work), target, tools)
        return _tfjs_logits(target, batch, tools)
    target.write_bytes(_tflite(model, dynamic=form is Form.TFLITE_DYNAMIC))
    return _tflite_logits(target, batch, len(shape.classes))


def _tfjs_logits(folder: Path, batch: Floats, tools: Path) -> Floats:
    runtime = [path for package in toolbox.TENSORFLOW_JS for path in toolbox.npm_files(package, tools)]
    files = {path.name: path for path in (*runtime, *folder.iterdir())}
    return next(found for found in browser.answer("tfjs", files, batch).values() if found.ndim == 2)


def _web_gap(bundle: ModelBundle, target: Path, golden: Golden, tools: Path) -> float:
    """Writes the bundle's graphs and onnxruntime-web into a folder and returns their largest gap in a browser."""
    target.mkdir(parents=True, exist_ok=True)
    runtime = toolbox.npm_files(toolbox.ONNXRUNTIME_WEB, tools)
    gaps = []
    for graph, batch in _graphs(bundle, golden):
        found = browser.answer("onnx", {"model.onnx": graph, **{path.name: path for path in runtime}}, batch)
        outputs = dict(zip(*_answers(graph, batch), strict=True))
        gaps += [_gap(found[name], outputs[name]) for name in outputs]
        shutil.copyfile(graph, target / graph.name)
    for path in runtime:
        shutil.copyfile(path, target / path.name)
    return max(gaps)


def _graphs(bundle: ModelBundle, golden: Golden) -> Iterator[tuple[Path, Floats]]:
    if bundle.classifier is not None:
        yield bundle.classifier_path, preprocessing.scale_crops(golden.crops, bundle.classifier.scaling)
    if bundle.detector is not None and golden.squares is not None:
        yield bundle.detector_path, preprocessing.detector_input(list(golden.squares))


def _answers(graph: Path, batch: Floats) -> tuple[list[str], tuple[Floats, ...]]:
    """Names of a graph's outputs and their values, in the graph's order."""
    import onnx

    names = [one.name for one in onnx.load(graph, load_external_data=False).graph.output]
    return names, Graph(graph).run(batch)


def _gap(found: Floats, wanted: Floats) -> float:
    return float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))


class _Batches:
    """Calibration batches for onnxruntime's quantiser."""

    def __init__(self, name: str, batches: Sequence[Floats]) -> None:
        self._rows: Iterator[dict[str, Floats]] = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, Floats] | None:
        """The next batch by input name, or None at the end."""
        return next(self._rows, None)


def _quantised(source: Path, target: Path, batches: Sequence[Floats]) -> Path:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    name = onnx.load(source, load_external_data=False).graph.input[0].name
    quantize_static(
        source,
        target,
        _Batches(name, batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv"],
    )
    return target


def _serving_model(shape: NetworkPlan, checkpoint: Path) -> Any:
    model, _ = networks.build(shape, None, 0.0)
    model.load_weights(checkpoint)
    return networks.serving_graph(shape, model)


def _saved_model_logits(folder: Path, batch: Floats) -> Floats:
    import tensorflow

    loaded = tensorflow.saved_model.load(str(folder))  # its variables live as long as this name
    answer = loaded.serve(batch)
    return np.asarray(answer[0] if isinstance(answer, list | tuple) else answer["logits"], dtype=np.float32)


def _tflite(model: Any, dynamic: bool) -> bytes:
    import tensorflow

    converter = tensorflow.lite.TFLiteConverter.from_keras_model(model)
    if dynamic:
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    return bytes(converter.convert())


def _tflite_logits(path: Path, batch: Floats, classes: int) -> Floats:
    import tensorflow

    interpreter = tensorflow.lite.Interpreter(model_path=str(path))
    source = interpreter.get_input_details()[0]["index"]
    output = next(one["index"] for one in interpreter.get_output_details() if len(one["shape"]) == 2)
    rows = []
    interpreter.allocate_tensors()
    for crop in batch:
        interpreter.set_tensor(source, crop[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(output)[0])
    return np.stack(rows).reshape(-1, classes)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
