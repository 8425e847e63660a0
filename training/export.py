"""Other forms of a bundle: INT8 ONNX as a bundle of its own; SavedModel and TFLite of the classifier, each proven."""

from __future__ import annotations

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
from ml_backend.preprocessing import Floats
from training import datasets, networks
from training.errors import DataError, ParityError
from training.networks import NetworkPlan

_CALIBRATION_IMAGES = 48
_GOLDEN = 8


class Form(StrEnum):
    """Forms of the classifier besides ONNX."""

    SAVED_MODEL = "saved-model"
    TFLITE = "tflite"
    TFLITE_DYNAMIC = "tflite-dynamic"


TOLERANCES = {Form.SAVED_MODEL: 1e-4, Form.TFLITE: 1e-4, Form.TFLITE_DYNAMIC: 0.1}
"""Largest difference of a logit from the served ONNX graph on golden crops, relative to the largest logit."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Where an export lies, its size in bytes, and its largest relative difference on the golden crops."""

    form: Form
    path: Path
    size: int
    gap: float


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


def export_classifier(checkpoint: Path, bundle: ModelBundle, form: Form, target: Path) -> Exported:
    """The classifier of a bundle in another form at `target`, made from its Keras checkpoint and proven on crops.

    Raises ParityError where a logit differs from the served graph's by more than the form's tolerance.
    """
    shape = networks.read_plan(checkpoint)
    model = _serving_model(shape, checkpoint)
    target.parent.mkdir(parents=True, exist_ok=True)
    side = shape.image_size
    golden = np.random.default_rng(0).integers(0, 256, (_GOLDEN, side, side, 3), dtype=np.uint8)
    batch = preprocessing.scale_crops(golden, shape.scaling)
    wanted = Graph(bundle.classifier_path).run(batch, "logits")[0]
    if form is Form.SAVED_MODEL:
        model.export(str(target), format="tf_saved_model", verbose=False)
        found = _saved_model_logits(target, batch)
    else:
        target.write_bytes(_tflite(model, dynamic=form is Form.TFLITE_DYNAMIC))
        found = _tflite_logits(target, batch, wanted.shape[1])
    gap = float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))
    if not gap <= TOLERANCES[form]:
        raise ParityError(f"{form} export", gap, f"at most {TOLERANCES[form]}", "Serve the ONNX graph.")
    return Exported(form, target, _size(target), gap)


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
