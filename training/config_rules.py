"""Which values a setting may take, beyond its type: names out of a list, numbers within bounds, devices as written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from training.errors import ConfigError

CHOICES: Mapping[str, tuple[str, ...]] = {
    "classifier.class_weights": ("balanced", "square-root", "none", "logit-adjusted", "logit-adjusted-by-source"),
    "dataset.test_truth": ("dermatologist", "qa", "consensus", "histopathology"),
    "classifier.disagreement": ("soft", "weight", "none"),
    "classifier.precision": ("float32", "mixed_bfloat16"),
    "classifier.schedule": ("cosine", "plateau", "constant"),
    "detector.precision": ("auto", "float32", "bfloat16"),
    "classifier.select_by": ("balanced_accuracy", "accuracy", "top3", "auc", "loss"),
}
_DEVICE = re.compile(r"cpu|mps|(cuda:)?\d+(,\d+)*|-1(,-1)*")
_AT_LEAST_ONE = ("batch", "nominal_batch", "epochs", "image_size", "max_detections", "patience", "plateau_patience")
_SHARES = (
    "agreement_weight",
    "colour_constancy",
    "coverage",
    "detector_boxes",
    "dropout",
    "ema",
    "fusion_iou",
    "iou_threshold",
)
_MORE_SHARES = ("detector_boxes", "label_smoothing", "level", "plateau_factor", "score_threshold", "sensitivity_goal")
_NOT_NEGATIVE = (
    "learning_rate",
    "fine_tune_learning_rate",
    "weight_decay",
    "workers",
    "frozen_epochs",
    "most_per_class",
)


def require_valid(item: str, table: str, values: Mapping[str, Any]) -> None:
    """Raises ConfigError for the first setting of a table whose value cannot be meant, naming what can."""
    for name, value in values.items():
        place = f"{table}.{name}"
        if name == "device" and not _DEVICE.fullmatch(value):
            cure = "Write cpu, mps, 0 for one graphics card, or 0,1 for two."
            raise ConfigError(f"{item}, {place}", value, "a device", cure)
        if (known := CHOICES.get(place)) and value not in known:
            near = difflib.get_close_matches(str(value), known, 1)
            cure = f"Did you mean {near[0]!r}?" if near else "Name one of these."
            raise ConfigError(f"{item}, {place}", value, f"one of {', '.join(known)}", cure)
        for low, high in _bounds(name):
            if not low <= value <= high:
                raise ConfigError(f"{item}, {place}", value, f"{low:g} to {high:g}", "Correct the value.")


def _bounds(name: str) -> Iterator[tuple[float, float]]:
    if name in _AT_LEAST_ONE:
        yield 1, 1_000_000
    if name in _SHARES or name in _MORE_SHARES:
        yield 0, 1
    if name in _NOT_NEGATIVE:
        yield 0, 1_000_000
