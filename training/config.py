"""The settings of a training job: frozen, every default visible, read from TOML where an unknown key is an error."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from converters.taxonomy import Target
from ml_backend.bundle import DetectorTask
from training import config_rules
from training.errors import ConfigError

_T = TypeVar("_T")
RECIPES = Path(__file__).with_name("recipes")


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """How the detector is trained.

    `model` is an ultralytics architecture such as yolo11n or yolo11s. `weights` is `auto` (the champion's
    checkpoint, else COCO's by ultralytics' own download, else from scratch), `scratch`, or the path of a checkpoint.
    `image_size` is the side of the square input in pixels. A step of the optimizer gathers gradients of about
    `nominal_batch` images; larger than `batch`, a small set gets few steps. `mosaic` and the following are
    ultralytics' augmentations. `degrees` turns pictures; boxes stay tight, for a lesion turns as its outline, or as
    the ellipse in its box where it has none. Where both flips are on, pictures are mirrored at the diagonal too.
    `precision` is float32, bfloat16 (on the CPU), or auto: bfloat16 where the processor multiplies it in hardware.
    `validate_each_epoch` keeps the best epoch by validation mAP; without it the last (averaged) weights are kept.
    `task` is detect, or segment for outlines (the model then is a -seg one). `device` is cpu, mps, a graphics card's
    number, or several as in 0,1. `agreement_weight` is how far the readers' disagreement over a lesion lowers its
    weight in the loss: 1 to the share of readers behind its label, 0 not at all.
    `score_threshold` 0 chooses the threshold of the best F1 on the validation split; `fusion_iou` 0 serves boxes as
    suppression leaves them.
    """

    model: str = "yolo11n"
    task: DetectorTask = DetectorTask.DETECT
    weights: str = "auto"
    image_size: int = 160
    epochs: int = 24
    batch: int = 16
    nominal_batch: int = 16
    optimizer: str = "AdamW"
    learning_rate: float = 0.002
    final_learning_rate: float = 0.02
    weight_decay: float = 0.0005
    warmup_epochs: float = 1.0
    cosine: bool = True
    patience: int = 100
    validate_each_epoch: bool = True
    mosaic: float = 0.0
    close_mosaic: int = 10
    scale: float = 0.35
    translate: float = 0.1
    degrees: float = 0.0
    flip_vertical: float = 0.5
    flip_horizontal: float = 0.5
    hue: float = 0.015
    saturation: float = 0.5
    brightness: float = 0.3
    erasing: float = 0.0
    box_gain: float = 7.5
    class_gain: float = 0.5
    distribution_gain: float = 1.5
    agreement_weight: float = 1.0
    precision: str = "auto"
    device: str = "cpu"
    workers: int = 0
    seed: int = 0
    score_threshold: float = 0.0
    iou_threshold: float = 0.5
    fusion_iou: float = 0.7
    max_detections: int = 20
    parity_tolerance: float = 0.0001


@dataclass(frozen=True, slots=True)
class ClassifierConfig:
    """How the classifier is trained.

    `backbone` is VGG16, MobileNetV2STN (MobileNetV2 alpha 0.75 behind a spatial transformer), Compact (small, for a
    few thousand crops without pretrained weights) or any name in keras.applications. With `symmetries` the served
    graph answers with the mean over the eight symmetries of a crop, which is eight times the work. `weights` is `auto`
    (the champion's checkpoint, else ImageNet's by Keras' own download, else from scratch), `imagenet`, `scratch`, or
    the path of a weights file for the backbone. `batch_norm` puts batch normalisation behind each convolution of a VGG
    that starts from scratch; the export folds it into the convolutions. `frozen_epochs` train the head alone and are
    skipped from scratch; `epochs` train everything, or the top `unfrozen_layers` (0 is all). `class_weights` is
    balanced, square-root, none, logit-adjusted (no weights; class frequencies are added to the logits while training),
    or logit-adjusted-by-source (those of each source apart). An epoch shows at most `most_per_class` crops of a class
    from one source, drawn anew (0: all). `precision` is float32 or mixed_bfloat16. `crop_margin` is how much wider
    than the served window a training crop is cut, so that shifts and zooms show real skin; `oversampling` how much
    finer, so that turning blurs less.
    `detector_boxes` is the share of training crops cut where the champion's detector found the lesion, instead of
    at the true box. `schedule` is cosine, constant, or plateau (the rate is multiplied by `plateau_factor` after
    `plateau_patience` epochs without a better score, down to `least_learning_rate`); after `patience` such epochs
    training ends. `colour_constancy` is the share of training crops shown under a neutral light. `ema` averages the
    weights over steps with this momentum (0: not at all). `select_by` names the validation metric of the best
    checkpoint: balanced_accuracy, accuracy, top3, auc or loss. `disagreement` says what readers who differed teach:
    soft (their shares are the target), weight (the loss counts by the share behind the truth) or none.
    `sensitivity_goal` is the share of malignant validation lesions that the operating point must flag; `coverage`
    is the share of lesions whose conformal set must hold the truth.
    """

    backbone: str = "VGG16"
    target: Target = Target.SEVERITY
    weights: str = "auto"
    image_size: int = 64
    batch_norm: bool = True
    symmetries: bool = False
    frozen_epochs: int = 4
    epochs: int = 20
    unfrozen_layers: int = 0
    batch: int = 16
    learning_rate: float = 0.001
    fine_tune_learning_rate: float = 0.0001
    weight_decay: float = 0.0001
    dropout: float = 0.3
    label_smoothing: float = 0.05
    disagreement: str = "soft"
    class_weights: str = "balanced"
    most_per_class: int = 0
    precision: str = "mixed_bfloat16"
    schedule: str = "cosine"
    plateau_patience: int = 4
    plateau_factor: float = 0.5
    least_learning_rate: float = 0.000001
    patience: int = 100
    select_by: str = "balanced_accuracy"
    flip: bool = True
    rotation: float = 180.0
    shift: float = 0.06
    zoom: float = 0.15
    shear: float = 0.05
    brightness: float = 0.15
    contrast: float = 0.15
    saturation: float = 0.15
    tint: float = 0.04
    mixup: float = 0.0
    ema: float = 0.0
    colour_constancy: float = 0.0
    crop_padding: float = 0.15
    crop_margin: float = 0.15
    detector_boxes: float = 0.0
    oversampling: float = 1.0
    sensitivity_goal: float = 0.9
    coverage: float = 0.9
    seed: int = 0
    parity_tolerance: float = 0.0001


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """How a bundle is measured: resamples of the bootstrap over patients, its level, and the least slice reported."""

    resamples: int = 1000
    level: float = 0.95
    minimum_slice: int = 30
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GateConfig:
    """Which declared policy decides (a name in policies.toml), and another policy file where the house has its own."""

    policy: str = "clinical"
    policies: str = ""


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """How a dataset is frozen before a retraining.

    `test_truth` is the weakest label that the locked test split takes in: dermatologist, qa, consensus or
    histopathology. What histopathology, follow-up or a consensus confirmed outside is always strong enough.
    """

    test_truth: str = "dermatologist"


@dataclass(frozen=True, slots=True)
class TrackingConfig:
    """Where each epoch's figures go besides the status file.

    `tensorboard` writes event files into the run folder (`tensorboard --logdir RUNS`). `mlflow` is a tracking URI such
    as `sqlite:////data/mlflow.db` or `http://mlflow.example:5000` (empty: none), `experiment` the name used there.
    """

    tensorboard: bool = True
    mlflow: str = ""
    experiment: str = "dermloop"


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """All settings of a retraining.

    `registry` is a shared registry, `s3://bucket/prefix`: a promotion goes there too (empty: this machine's alone).
    """

    name: str = "dermloop"
    registry: str = ""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def read(path: Path) -> TrainingConfig:
    """The settings of a TOML file over the defaults; raises ConfigError for a wrong value or an unknown key."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(str(path), str(error), "a readable TOML file", "Fix or name another file.") from error
    return decode(raw, str(path))


def recipe(name: str) -> TrainingConfig:
    """A recipe that ships with the package (`first`, `loop`, `full`, …); raises ConfigError for an unknown name."""
    path = RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in RECIPES.glob("*.toml")))
        raise ConfigError("recipe", name, f"one of {known}", "Name one of these or a TOML file.")
    return read(path)


def decode(raw: Mapping[str, Any], item: str = "configuration") -> TrainingConfig:
    """The settings of parsed TOML over the defaults; raises ConfigError naming `item`, key and a likely spelling."""
    return _decode(TrainingConfig, raw, item)


def encode(config: TrainingConfig) -> str:
    """TOML with every setting written out; `decode` reads it back equal."""
    lines: list[str] = []
    _encode(config, "", lines)
    return "\n".join(lines).strip() + "\n"


def _decode(kind: type[_T], raw: Mapping[str, Any], item: str) -> _T:
    hints = get_type_hints(kind)
    values = {}
    for key, value in raw.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            known = "a setting that there is" if near else f"one of {', '.join(hints)}"
            cure = f"Did you mean {near[0]!r}?" if near else "Remove the key."
            raise ConfigError(f"{item}, key {key!r}", value, known, cure)
        values[key] = _value(hints[key], value, f"{item}, {key}")
    if table := kind.__name__.removesuffix("Config").lower():
        config_rules.require_valid(item.split(",")[0], table, values)
    return kind(**values)


def _value(hint: Any, value: Any, item: str) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(item, value, "a table", f"Write it as [{item.rsplit(' ', 1)[-1]}].")
        return _decode(hint, value, item)
    if get_origin(hint) is tuple:
        return tuple(_value(get_args(hint)[0], part, item) for part in value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        if value not in tuple(hint):
            raise ConfigError(item, value, f"one of {', '.join(hint)}", "Name one of these.")
        return hint(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ConfigError(item, value, f"a value of type {hint.__name__}", "Correct the value.")
    return value


def _encode(value: Any, table: str, lines: list[str]) -> None:
    nested = []
    for known in fields(value):
        current = getattr(value, known.name)
        if is_dataclass(current):
            nested.append((known.name, current))
        else:
            lines.append(f"{known.name} = {_literal(current)}")
    for name, current in nested:
        path = f"{table}.{name}" if table else name
        lines += ["", f"[{path}]"]
        _encode(current, path, lines)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(part) for part in value)}]"
    if isinstance(value, str):
        escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)
