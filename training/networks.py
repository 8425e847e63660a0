"""Classifier networks: any convolutional backbone, then a pooled linear head whose class activation map is free."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

from converters.taxonomy import Target
from ml_backend.bundle import Scaling
from training.config import ClassifierConfig
from training.errors import ConfigError, DataError, MissingExtraError
from training.quiet import without_native_messages

_CAFFE = ("VGG", "ResNet")
_SIGNED = ("MobileNet", "Inception", "Xception", "NASNet")
STN = "MobileNetV2STN"
"""The name of MobileNetV2 (alpha 0.75) behind a spatial transformer network."""

COMPACT = "Compact"
"""The name of the small network that starts from scratch."""

_START = "classifier-start.json"
_DOWNLOADS = ("storage.googleapis.com", 443)


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """All that fixes a network's weights, and whether its served graph averages over the symmetries of a crop."""

    backbone: str
    target: Target
    classes: tuple[str, ...]
    image_size: int
    batch_norm: bool
    scaling: Scaling
    symmetries: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """The weights a network begins with: a checkpoint, the backbone's own, or none; and that in words."""

    checkpoint: Path | None
    backbone: str | None
    words: str

    @property
    def pretrained(self) -> bool:
        """Whether anything was learnt before."""
        return self.checkpoint is not None or self.backbone is not None


def keras_library() -> Any:
    """Keras on TensorFlow; raises MissingExtraError without the `train` extra."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" in sys.modules:
        return sys.modules["keras"]
    try:
        with without_native_messages():
            _load_triton()
            import keras

            keras.ops.zeros(1)  # the first operation looks for graphics cards, and says so
    except ImportError as error:
        raise MissingExtraError("keras", str(error), "the train extra", "Run `pip install dermloop[train]`.") from error
    return keras


def _load_triton() -> None:
    """Loads the compiler behind torch, where it is installed: after TensorFlow, its LLVM would abort the process."""
    with contextlib.suppress(ImportError):
        import_module("triton._C.libtriton")


def choose_start(config: ClassifierConfig, classes: tuple[str, ...], champion: Path | None) -> Start:
    """Where the weights come from, by `config.weights`; raises DataError for a file that is not there."""
    if config.weights == "scratch":
        return Start(None, None, "scratch")
    if config.weights not in ("auto", "imagenet"):
        if not Path(config.weights).is_file():
            raise DataError("classifier weights", config.weights, "an existing file", "Correct classifier.weights.")
        return Start(None, config.weights, f"the file {Path(config.weights).name}")
    if config.weights == "auto" and champion is not None and _fits(champion, config, classes):
        return Start(champion, None, "the champion's checkpoint")
    if config.backbone == COMPACT:
        return Start(None, None, "scratch")
    if _reachable():
        return Start(None, "imagenet", "ImageNet weights")
    return Start(None, None, "scratch: ImageNet weights are out of reach")


def begun_with(folder: Path, config: ClassifierConfig, classes: tuple[str, ...], champion: Path | None) -> Start:
    """The start that a run folder has on record, else one chosen now and put there.

    A run that is taken up again goes on as it began, whoever became champion meanwhile.
    """
    record = folder / _START
    if record.is_file():
        row = orjson.loads(record.read_bytes())
        return Start(Path(row["checkpoint"]) if row["checkpoint"] else None, row["backbone"], row["words"])
    start = choose_start(config, classes, champion)
    record.write_bytes(orjson.dumps(asdict(start), default=str))
    return start


def plan(config: ClassifierConfig, classes: tuple[str, ...], start: Start) -> NetworkPlan:
    """The network of a configuration; a checkpoint keeps the plan it was trained with."""
    if start.checkpoint is not None:
        return replace(read_plan(start.checkpoint), symmetries=config.symmetries)
    pretrained = start.backbone is not None
    scaling = _scaling(config.backbone) if pretrained else Scaling.SIGNED
    normalised = config.batch_norm and not pretrained and config.backbone.startswith("VGG")
    side, symmetries = config.image_size, config.symmetries
    return NetworkPlan(config.backbone, config.target, classes, side, normalised, scaling, symmetries)


def build(shape: NetworkPlan, weights: str | None, dropout: float) -> tuple[Any, Any]:
    """The training model (pixels → logits) and its backbone; `weights` are the backbone's, or None for none."""
    keras = keras_library()
    backbone = _backbone(keras, shape, weights)
    features = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    features = keras.layers.Dropout(dropout, name="dropout")(features)
    logits = keras.layers.Dense(len(shape.classes), dtype="float32", name="head")(features)
    return keras.Model(backbone.inputs[0], logits, name="classifier"), backbone


def serving_graph(shape: NetworkPlan, model: Any) -> Any:
    """The same network in float32 with outputs logits (N, C) and cam (N, h, w, C), the map whose mean is the logits."""
    keras = keras_library()
    backbone = _backbone(keras, shape, None)
    head = keras.layers.Conv2D(len(shape.classes), 1, name="cam")
    pictures = backbone.inputs[0]
    cam = head(backbone.output)
    if shape.symmetries:
        from training import symmetries

        pictures = keras.Input(pictures.shape[1:])
        cam = symmetries.gathered(head(backbone(symmetries.spread(pictures))))
    logits = keras.layers.GlobalAveragePooling2D(name="logits")(cam)
    graph = keras.Model(pictures, [logits, cam], name="classifier")
    weights = model.get_weights()
    backbone.set_weights(weights[:-2])
    head.set_weights([weights[-2][None, None], weights[-1]])
    return graph


def write_plan(shape: NetworkPlan, checkpoint: Path) -> None:
    """Stores the plan beside a checkpoint."""
    checkpoint.with_suffix(".json").write_bytes(orjson.dumps(asdict(shape)))


def read_plan(checkpoint: Path) -> NetworkPlan:
    """The plan beside a checkpoint; raises DataError where it is missing or malformed."""
    try:
        row = orjson.loads(checkpoint.with_suffix(".json").read_bytes())
        row = {**row, "target": Target(row["target"]), "scaling": Scaling(row["scaling"])}
        return NetworkPlan(**{**row, "classes": tuple(row["classes"])})
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(str(checkpoint), str(error), "a checkpoint with its plan", "Train from scratch.") from error


def _fits(champion: Path, config: ClassifierConfig, classes: tuple[str, ...]) -> bool:
    with contextlib.suppress(DataError):
        known = read_plan(champion)
        wanted = (config.backbone, config.target, classes, config.image_size)
        return champion.is_file() and (known.backbone, known.target, known.classes, known.image_size) == wanted
    return False


def _reachable() -> bool:
    """Whether Keras' download host answers within seconds; a blocked network must not hold up a training."""
    try:
        with socket.create_connection(_DOWNLOADS, timeout=3):
            return True
    except OSError:
        return False


def _scaling(backbone: str) -> Scaling:
    if backbone.endswith("V2") and backbone.startswith("ResNet"):
        return Scaling.SIGNED
    if backbone.startswith(_CAFFE):
        return Scaling.CAFFE
    if backbone.startswith(_SIGNED):
        return Scaling.SIGNED
    raise ConfigError(
        "classifier.backbone", backbone, "a backbone with caffe or signed input", "Set classifier.weights to scratch."
    )


def _backbone(keras: Any, shape: NetworkPlan, weights: str | None) -> Any:
    side = (shape.image_size, shape.image_size, 3)
    if shape.backbone == STN:
        return _behind_transformer(keras, side, weights)
    if shape.backbone == COMPACT:
        return _compact(shape, weights)
    maker = getattr(keras.applications, shape.backbone, None)
    if maker is None:
        raise ConfigError("classifier.backbone", shape.backbone, "a name in keras.applications", "Correct the name.")
    whole = maker(include_top=False, weights=weights, input_shape=side)
    if not shape.backbone.startswith("VGG"):
        return _quick_to_settle(keras, whole, weights)
    last = next(layer for layer in reversed(whole.layers) if isinstance(layer, keras.layers.Conv2D))
    features = keras.Model(whole.input, last.output, name=whole.name)
    return _normalised(keras, features) if shape.batch_norm else features


def _compact(shape: NetworkPlan, weights: str | None) -> Any:
    from training import compact

    if weights is not None:
        raise ConfigError("classifier.weights", weights, "scratch: nothing is published", "Set it to scratch.")
    if shape.image_size % compact.STEP:
        wanted = f"a multiple of {compact.STEP}"
        raise ConfigError("classifier.image_size", shape.image_size, wanted, "Correct the value.")
    return compact.backbone(shape.image_size)


def _behind_transformer(keras: Any, side: tuple[int, int, int], weights: str | None) -> Any:
    """MobileNetV2 at three quarters of its width, behind a spatial transformer."""
    from training import spatial_transformer

    def mobile(**source: Any) -> Any:
        return keras.applications.MobileNetV2(alpha=0.75, include_top=False, **source)

    pictures = keras.Input(side)
    whole = mobile(weights=None, input_tensor=spatial_transformer.transformed(pictures))
    if weights is not None:
        plain = mobile(weights=weights, input_shape=side)
        for layer in plain.layers[1:]:
            whole.get_layer(layer.name).set_weights(layer.get_weights())
    return _quick_to_settle(keras, whole, weights)


def _quick_to_settle(keras: Any, backbone: Any, weights: str | None) -> Any:
    """The backbone, its running statistics following within epochs where nothing was learnt before.

    Keras' own momentum of 0.999 suits ImageNet's million pictures: on a few thousand the statistics never arrive.
    """
    if weights is None:
        for layer in backbone.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9
    return backbone


def _normalised(keras: Any, plain: Any) -> Any:
    """The same convolutions with batch normalisation between convolution and activation."""

    def bare(layer: Any) -> Any:
        settings = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D):
            settings |= {"activation": "linear", "kernel_initializer": "he_normal"}
        return layer.__class__.from_config(settings)

    def applied(layer: Any, *inputs: Any, **options: Any) -> Any:
        outputs = layer(*inputs, **options)
        if isinstance(layer, keras.layers.Conv2D):
            outputs = keras.layers.BatchNormalization(momentum=0.9, name=f"{layer.name}_norm")(outputs)
            outputs = keras.layers.ReLU(name=f"{layer.name}_relu")(outputs)
        return outputs

    return keras.models.clone_model(plain, clone_function=bare, call_function=applied)
