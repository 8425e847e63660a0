"""The evaluation report: what one bundle measured on one split of one dataset version, and its form on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from scipy import stats

from converters.whole import write_whole
from training.cases import CaseTable, ImageCase, LesionCase, Part, measures, resample_weights
from training.config import EvaluationConfig
from training.errors import EvaluationError
from training.metrics import Array
from training.words import wording

_FORMAT = 1
_SLICE_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure: its part, value, bootstrap interval over patients (NaN where unknown) and number of cases."""

    name: str
    part: Part
    value: float
    low: float
    high: float
    cases: int


@dataclass(frozen=True, slots=True)
class SliceMetric:
    """One metric within one slice; `evidence` is false under the minimum number of cases, and then nothing is shown."""

    attribute: str
    value: str
    metric: Metric
    evidence: bool


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """What a bundle measured on one split.

    `split_digest` fixes images and truths: only reports with equal digests may be compared. `has_detector` and
    `has_classifier` say which parts the bundle has; `ms_per_image` is the median time of the pipeline, one image at a
    time; `skipped` counts images left out because nobody graded them.
    """

    bundle: str
    dataset: str
    split: str
    split_digest: str
    classes: tuple[str, ...]
    metrics: tuple[Metric, ...]
    cases: tuple[ImageCase, ...]
    slices: tuple[SliceMetric, ...] = field(default=())
    ms_per_image: float = math.nan
    skipped: int = 0
    has_detector: bool = True
    has_classifier: bool = True

    def get(self, name: str) -> Metric | None:
        """The metric of that name, or None where the report has none."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def value(self, name: str) -> float:
        """The value of a metric; NaN where the report has none."""
        found = self.get(name)
        return found.value if found else math.nan

    def table(self) -> CaseTable:
        """The cases laid out in arrays."""
        return CaseTable(self.cases, self.classes)


def summarise(table: CaseTable, config: EvaluationConfig, parts: frozenset[Part]) -> tuple[Metric, ...]:
    """Every metric of the given parts that has cases, with its percentile-bootstrap interval over groups."""
    weights = resample_weights(table.groups, config.resamples, config.seed)
    found = []
    for name, measure in measures(table.classes).items():
        if measure.part not in parts or not (cases := measure.cases(table)):
            continue
        low, high = _interval(name, table, weights, config)
        found.append(Metric(name, measure.part, measure.value(table, table.ones), low, high, cases))
    return tuple(found)


def summarise_slices(table: CaseTable, config: EvaluationConfig, parts: frozenset[Part]) -> tuple[SliceMetric, ...]:
    """The main metrics within each slice by attribute and value; under the minimum of cases there is no evidence.

    Where there is, a metric has its interval, over at most 200 resamples.
    """
    found = []
    for attribute, value in sorted({pair for image in table.images for pair in image.slices}):
        part = CaseTable(tuple(i for i in table.images if (attribute, value) in i.slices), table.classes)
        weights = resample_weights(part.groups, min(config.resamples, _SLICE_RESAMPLES), config.seed)
        for name, measure in measures(table.classes).items():
            if name in _SLICED and measure.part in parts and measure.cases(table):
                cases = measure.cases(part)
                number = measure.value(part, part.ones) if cases else math.nan
                evidence = cases >= config.minimum_slice
                low, high = _interval(name, part, weights, config) if evidence else (math.nan, math.nan)
                metric = Metric(name, measure.part, number, low, high, cases)
                found.append(SliceMetric(attribute, value, metric, evidence))
    return tuple(found)


def save(report: EvaluationReport, path: Path) -> None:
    """Writes the report as JSON, whole or not at all."""
    write_whole(path, orjson.dumps(encode(report), option=orjson.OPT_SORT_KEYS))


def load(path: Path) -> EvaluationReport:
    """The report of a JSON file; raises EvaluationError where it is missing or malformed."""
    try:
        return decode(orjson.loads(path.read_bytes()))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(str(path), str(error), "an evaluation report", "Evaluate the bundle again.") from error


def encode(report: EvaluationReport) -> dict[str, Any]:
    """Plain form of a report that `decode` reads back equal; NaN becomes null."""
    row = {name: getattr(report, name) for name in _PLAIN}
    row["metrics"] = [asdict(metric) for metric in report.metrics]
    row["slices"] = [asdict(part) for part in report.slices]
    row["cases"] = [asdict(case) for case in report.cases]
    return {"format": _FORMAT, **row}


def decode(row: Mapping[str, Any]) -> EvaluationReport:
    """The report of its plain form; raises KeyError, TypeError or ValueError for a malformed one."""
    if row["format"] != _FORMAT:
        raise ValueError(f"format {row['format']}")
    plain = {name: row[name] for name in _PLAIN}
    plain["classes"] = tuple(plain["classes"])
    plain["ms_per_image"] = _number(plain["ms_per_image"])
    return EvaluationReport(
        **plain,
        metrics=tuple(_metric(metric) for metric in row["metrics"]),
        slices=tuple(SliceMetric(**{**part, "metric": _metric(part["metric"])}) for part in row["slices"]),
        cases=tuple(decode_case(case) for case in row["cases"]),
    )


_PLAIN = (
    "bundle",
    "dataset",
    "split",
    "split_digest",
    "classes",
    "ms_per_image",
    "skipped",
    "has_detector",
    "has_classifier",
)
_SLICED = frozenset({"map50", "dice", "detection_sensitivity", "balanced_accuracy", "malignant_sensitivity"})


def _interval(name: str, table: CaseTable, weights: Array, config: EvaluationConfig) -> tuple[float, float]:
    """The percentile interval over resamples; of a share that is 0 or 1 in all of them, Wilson's for the groups."""
    measure = measures(table.classes)[name]
    values = np.array([measure.value(table, row) for row in weights])
    values = values[~np.isnan(values)]
    if not values.size:
        return math.nan, math.nan
    tail = 100 * (1 - config.level) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    if low == high and low in (0.0, 1.0) and wording(name).share:
        return _wilson(low == 1.0, min(measure.cases(table), int(table.groups.max()) + 1), config.level)
    return float(low), float(high)


def _wilson(all_right: bool, count: int, level: float) -> tuple[float, float]:
    """The interval of a share that was 1 (or 0) in `count` cases: resampling these could never show another.

    Source: Wilson 1927.
    """
    z = float(stats.norm.ppf(0.5 + level / 2))
    reach = z * z / (count + z * z)
    return (1 - reach, 1.0) if all_right else (0.0, reach)


def _metric(row: Mapping[str, Any]) -> Metric:
    numbers = {name: _number(row[name]) for name in ("value", "low", "high")}
    return Metric(name=row["name"], part=Part(row["part"]), cases=row["cases"], **numbers)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def decode_case(row: Mapping[str, Any]) -> ImageCase:
    """The case of its plain form (`asdict`, NaN as null); raises KeyError, TypeError or ValueError for others."""
    return ImageCase(
        image_id=row["image_id"],
        group=row["group"],
        lesions=row["lesions"],
        scores=tuple(row["scores"]),
        hits=tuple(tuple(flags) for flags in row["hits"]),
        found=tuple(row["found"]),
        false_alarms=row["false_alarms"],
        readings=tuple(LesionCase(**{**r, "probabilities": tuple(r["probabilities"])}) for r in row["readings"]),
        slices=tuple((name, value) for name, value in row["slices"]),
        dice=_number(row.get("dice")),
        outline_iou=_number(row.get("outline_iou")),
    )
