"""What a bundle answered, image by image: the raw material of every metric, interval and comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np

from training import metrics
from training.metrics import Array, Flags, Indices


class Part(StrEnum):
    """Which part of a bundle a metric measures."""

    DETECTOR = "detector"
    CLASSIFIER = "classifier"
    PIPELINE = "pipeline"


@dataclass(frozen=True, slots=True)
class LesionCase:
    """One true lesion as the classifier read it from its true box.

    `truth` is the class index of the classifier's target, `probabilities` its calibrated answer in index order,
    `malignant` the truth of it and `malignant_share` the answer; `flagged` whether the share reaches the operating
    point; `served` whether the pipeline as served found the lesion and, if so, flagged it.
    """

    diagnosis: str
    truth: int
    probabilities: tuple[float, ...]
    malignant: bool
    malignant_share: float
    flagged: bool
    served: bool = False


@dataclass(frozen=True, slots=True)
class ImageCase:
    """One image: detections best first with their hits at ten IoU thresholds, and its lesions as read.

    `group` is the patient, else the lesion, else the image. `found` says of each true lesion whether a served detection
    overlaps it by half. `served` counts the detections over the served threshold, `false_alarms` those on no lesion.
    `slices` are (attribute, value) pairs such as ("sex", "female"). `dice` and `outline_iou` compare the outlines that
    are served with the true ones; NaN where the detector draws none or the truth has none.
    """

    image_id: str
    group: str
    lesions: int
    scores: tuple[float, ...]
    hits: tuple[tuple[bool, ...], ...]
    found: tuple[bool, ...] = ()
    false_alarms: int = 0
    readings: tuple[LesionCase, ...] = ()
    slices: tuple[tuple[str, str], ...] = field(default=())
    dice: float = math.nan
    outline_iou: float = math.nan


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric: the part it measures, whether more is better, its value for weighted images, its number of cases."""

    part: Part
    higher_is_better: bool
    value: Callable[[CaseTable, Array], float]
    cases: Callable[[CaseTable], int]


@dataclass(frozen=True)
class CaseTable:
    """Cases laid out in arrays, so that a resample or a slice is nothing but a weight for each image."""

    images: tuple[ImageCase, ...]
    classes: tuple[str, ...]

    @cached_property
    def groups(self) -> Indices:
        """Number of the group of each image."""
        return np.unique([image.group for image in self.images], return_inverse=True)[1].astype(np.intp)

    @cached_property
    def lesions(self) -> Array:
        """True lesions of each image."""
        return np.array([image.lesions for image in self.images], dtype=np.float64)

    @cached_property
    def scores(self) -> Array:
        """Scores of all detections, best first: the order in which every resample needs them."""
        return self._drawn_scores[self._best_first]

    @cached_property
    def hits(self) -> Flags:
        """Hits (10, detections), in the order of the scores."""
        rows = [np.array(image.hits, dtype=bool).reshape(10, len(image.scores)) for image in self.images]
        return np.concatenate(rows, axis=1)[:, self._best_first] if rows else np.zeros((10, 0), dtype=bool)

    @cached_property
    def detection_image(self) -> Indices:
        """Image of each detection, in the order of the scores."""
        return _owners([len(image.scores) for image in self.images])[self._best_first]

    @cached_property
    def _drawn_scores(self) -> Array:
        return np.array([score for image in self.images for score in image.scores], dtype=np.float64)

    @cached_property
    def _best_first(self) -> Indices:
        return np.argsort(-self._drawn_scores, kind="stable")

    @cached_property
    def found(self) -> Flags:
        """Whether each true lesion was found."""
        return np.array([flag for image in self.images for flag in image.found], dtype=bool)

    @cached_property
    def found_image(self) -> Indices:
        """Image of each true lesion."""
        return _owners([len(image.found) for image in self.images])

    @cached_property
    def false_alarms(self) -> Array:
        """Served detections on no lesion, for each image."""
        return np.array([image.false_alarms for image in self.images], dtype=np.float64)

    @cached_property
    def overlaps(self) -> Array:
        """Dice and IoU of each image's outlines (images, 2); NaN where not measured."""
        return np.array([(image.dice, image.outline_iou) for image in self.images], dtype=np.float64).reshape(-1, 2)

    @cached_property
    def readings(self) -> tuple[LesionCase, ...]:
        """All lesions that were read."""
        return tuple(reading for image in self.images for reading in image.readings)

    @cached_property
    def reading_image(self) -> Indices:
        """Image of each reading."""
        return _owners([len(image.readings) for image in self.images])

    @cached_property
    def truth(self) -> Indices:
        """Class index of each reading."""
        return np.array([reading.truth for reading in self.readings], dtype=np.intp)

    @cached_property
    def probabilities(self) -> Array:
        """Answers (readings, classes)."""
        rows = np.array([reading.probabilities for reading in self.readings], dtype=np.float64)
        return rows.reshape(len(self.readings), len(self.classes))

    @cached_property
    def malignant(self) -> Flags:
        """Whether each reading's lesion is malignant."""
        return np.array([reading.malignant for reading in self.readings], dtype=bool)

    @cached_property
    def melanoma(self) -> Flags:
        """Whether each reading's lesion is a melanoma."""
        return np.array([reading.diagnosis == "mel" for reading in self.readings], dtype=bool)

    @cached_property
    def malignant_share(self) -> Array:
        """Share of malignant diagnoses in each answer."""
        return np.array([reading.malignant_share for reading in self.readings], dtype=np.float64)

    @cached_property
    def flagged(self) -> Flags:
        """Whether each answer reaches the operating point."""
        return np.array([reading.flagged for reading in self.readings], dtype=bool)

    @cached_property
    def served(self) -> Flags:
        """Whether the pipeline as served found and flagged each reading's lesion."""
        return np.array([reading.served for reading in self.readings], dtype=bool)

    def confusion(self, weights: Array) -> Array:
        """Weighted confusion matrix of the classifier's top class."""
        predicted = self.probabilities.argmax(axis=1) if len(self.readings) else self.truth
        return metrics.confusion(self.truth, predicted, len(self.classes), weights[self.reading_image])

    def slice_weights(self, attribute: str, value: str) -> Array:
        """1 for each image of a slice, 0 for the others."""
        return np.array([(attribute, value) in image.slices for image in self.images], dtype=np.float64)

    @property
    def ones(self) -> Array:
        """A weight of 1 for each image."""
        return np.ones(len(self.images))


def measures(classes: Sequence[str]) -> Mapping[str, Measure]:
    """Every metric of a report by name; the recalls are those of the given classes."""
    return {**_DETECTION, **_CLASSIFICATION, **{f"recall.{name}": _recall(n) for n, name in enumerate(classes)}}


def resample_weights(groups: Indices, resamples: int, seed: int) -> Array:
    """How often each image counts in each bootstrap resample of whole groups: shape (resamples, images)."""
    count = int(groups.max(initial=-1)) + 1
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, count, (resamples, count)) if count else np.zeros((resamples, 0), dtype=int)
    return np.stack([np.bincount(row, minlength=count)[groups] for row in drawn]).astype(np.float64)


def _owners(counts: Sequence[int]) -> Indices:
    return np.repeat(np.arange(len(counts)), counts).astype(np.intp)


def _precision(table: CaseTable, weights: Array) -> Array:
    lesions = float((weights * table.lesions).sum())
    return metrics.average_precision(table.scores, table.hits, lesions, weights[table.detection_image])


def _map50(table: CaseTable, weights: Array) -> float:
    lesions = float((weights * table.lesions).sum())
    return float(metrics.average_precision(table.scores, table.hits[:1], lesions, weights[table.detection_image])[0])


def _false_positives(table: CaseTable, weights: Array) -> float:
    total = float(weights.sum())
    return float((weights * table.false_alarms).sum()) / total if total > 0 else math.nan


def _among(chosen: Callable[[CaseTable], Flags], flags: Callable[[CaseTable], Flags]) -> Measure:
    def value(table: CaseTable, weights: Array) -> float:
        own = weights[table.reading_image] * chosen(table)
        return metrics.share(flags(table), own)

    return Measure(Part.CLASSIFIER, True, value, lambda table: int(chosen(table).sum()))


def _reading(higher: bool, value: Callable[[CaseTable, Array], float]) -> Measure:
    return Measure(
        Part.CLASSIFIER, higher, lambda t, w: value(t, w[t.reading_image]), lambda table: len(table.readings)
    )


def _recall(column: int) -> Measure:
    return Measure(
        Part.CLASSIFIER,
        True,
        lambda table, weights: float(metrics.recalls(table.confusion(weights))[column]),
        lambda table: int((table.truth == column).sum()),
    )


def _macro_auc(table: CaseTable, weights: Array) -> float:
    areas = [metrics.auc(table.truth == c, table.probabilities[:, c], weights) for c in range(len(table.classes))]
    known = [area for area in areas if not math.isnan(area)]
    return float(np.mean(known)) if known else math.nan


def _outline(column: int) -> Measure:
    """The mean over images of what compares their outlines."""

    def value(table: CaseTable, weights: Array) -> float:
        known = ~np.isnan(table.overlaps[:, column])
        total = float(weights[known].sum())
        return float((weights[known] * table.overlaps[known, column]).sum()) / total if total > 0 else math.nan

    return Measure(Part.DETECTOR, True, value, lambda t: int((~np.isnan(t.overlaps[:, column])).sum()))


def _lesion_count(table: CaseTable) -> int:
    return int(table.lesions.sum())


_DETECTION: Mapping[str, Measure] = {
    "map50": Measure(Part.DETECTOR, True, _map50, _lesion_count),
    "map50_95": Measure(Part.DETECTOR, True, lambda t, w: float(_precision(t, w).mean()), _lesion_count),
    "detection_sensitivity": Measure(
        Part.DETECTOR, True, lambda t, w: metrics.share(t.found, w[t.found_image]), _lesion_count
    ),
    "false_positives_per_image": Measure(Part.DETECTOR, False, _false_positives, lambda t: len(t.images)),
    "dice": _outline(0),
    "outline_iou": _outline(1),
}
_CLASSIFICATION: Mapping[str, Measure] = {
    "accuracy": _reading(True, lambda t, w: _accuracy(t, w, metrics.accuracy)),
    "balanced_accuracy": _reading(True, lambda t, w: _accuracy(t, w, metrics.balanced_accuracy)),
    "top3": _reading(True, lambda t, w: metrics.top_k(t.probabilities, t.truth, 3, w)),
    "auc_macro": _reading(True, _macro_auc),
    "malignant_auc": _reading(True, lambda t, w: metrics.auc(t.malignant, t.malignant_share, w)),
    "malignant_sensitivity": _among(lambda t: t.malignant, lambda t: t.flagged),
    "malignant_specificity": _among(lambda t: ~t.malignant, lambda t: ~t.flagged),
    "melanoma_sensitivity": _among(lambda t: t.melanoma, lambda t: t.flagged),
    "served_malignant_sensitivity": Measure(
        Part.PIPELINE,
        True,
        lambda t, w: metrics.share(t.served, w[t.reading_image] * t.malignant),
        lambda t: int(t.malignant.sum()),
    ),
    "brier": _reading(False, lambda t, w: metrics.brier(t.probabilities, t.truth, w)),
    "calibration_error": _reading(False, lambda t, w: metrics.calibration_error(t.probabilities, t.truth, w)),
}


def _accuracy(table: CaseTable, weights: Array, of: Callable[[Array], float]) -> float:
    predicted = table.probabilities.argmax(axis=1) if len(table.readings) else table.truth
    return of(metrics.confusion(table.truth, predicted, len(table.classes), weights))
