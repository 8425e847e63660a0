"""The numbers of the front page, worked out from stored reviews."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from converters.annotation import Annotation
from converters.geometry import RleMask
from converters.label_studio.controls import Tier
from converters.taxonomy import Taxonomy
from review_workflow.gold import GoldScore
from review_workflow.measures import (
    Interval,
    box_agreement,
    cohen_kappa,
    dice,
    krippendorff_alpha,
    match,
    with_interval,
)
from review_workflow.quality import ReaderQuality
from review_workflow.review import Review
from review_workflow.store.insight import ReaderWork

_RESAMPLES = 200
_WEEKS = 12


@dataclass(frozen=True, slots=True)
class ReaderAgreement:
    """How well independent readers of the same images agree: boxes by F1 and IoU, masks by Dice, diagnoses by kappa.

    Alpha has its interval; the measures are None where nothing was read twice, or nothing painted twice.
    """

    images: int
    f1: float | None = None
    mean_iou: float | None = None
    dice: float | None = None
    kappa: float | None = None
    alpha: Interval | None = None


@dataclass(frozen=True, slots=True)
class Week:
    """Agreement on the images whose last reading was in one week: its Monday, how many, box F1, same diagnosis."""

    monday: str
    images: int
    f1: float
    same_diagnosis: float


@dataclass(frozen=True, slots=True)
class ReaderRow:
    """Everything known of one reader in one tier; what was never measured is None."""

    author: str
    tier: Tier
    work: ReaderWork | None
    quality: ReaderQuality | None
    gold: GoldScore | None


def measure(reviews: Sequence[Review], taxonomy: Taxonomy, iou: float) -> ReaderAgreement:
    """Agreement over the images that at least two readers have read, by the first two of each."""
    double = [pair for review in reviews if (pair := _pair(review))]
    if not double:
        return ReaderAgreement(0)
    boxes = [box_agreement(one, other, iou) for one, other in double]
    shared = [found.mean_iou for found in boxes if found.matched]
    painted = [value for one, other in double for value in _dices(one, other, iou)]
    labels = _labels(double, taxonomy)
    return ReaderAgreement(
        len(double),
        f1=_mean([found.f1 for found in boxes]),
        mean_iou=_mean(shared),
        dice=_mean(painted),
        kappa=cohen_kappa([f"{x:g}" for x in labels[0]], [f"{x:g}" for x in labels[1]]),
        alpha=with_interval(krippendorff_alpha, labels, _RESAMPLES),
    )


def weekly(reviews: Iterable[Review], taxonomy: Taxonomy, iou: float) -> tuple[Week, ...]:
    """Agreement week by week, oldest first, of the last twelve weeks that have any."""
    weeks: dict[date, list[tuple[Annotation, Annotation]]] = defaultdict(list)
    for pair in filter(None, map(_pair, reviews)):
        moments = [reading.created_at for reading in pair if reading.created_at]
        if moments:
            day = max(moments).date()
            weeks[day - timedelta(days=day.weekday())].append(pair)
    return tuple(_week(monday, pairs, taxonomy, iou) for monday, pairs in sorted(weeks.items())[-_WEEKS:])


def reader_rows(
    works: Iterable[ReaderWork], qualities: Iterable[ReaderQuality], golds: Iterable[GoldScore]
) -> tuple[ReaderRow, ...]:
    """One row for each reader in each tier, by tier and name, whatever is known of them."""
    work = {(found.tier, found.author): found for found in works}
    quality = {(found.tier, found.author): found for found in qualities}
    gold = {(found.tier, found.author): found for found in golds}
    keys = sorted({*work, *quality, *gold})
    return tuple(ReaderRow(key[1], key[0], work.get(key), quality.get(key), gold.get(key)) for key in keys)


def _pair(review: Review) -> tuple[Annotation, Annotation] | None:
    readings = review.readings(Tier.DERMATOLOGIST)
    return (readings[0].annotation, readings[1].annotation) if len(readings) > 1 else None


def _week(monday: date, pairs: Sequence[tuple[Annotation, Annotation]], taxonomy: Taxonomy, iou: float) -> Week:
    labels = _labels(pairs, taxonomy)
    same = float((labels[0] == labels[1]).mean())
    f1 = sum(box_agreement(one, other, iou).f1 for one, other in pairs) / len(pairs)
    return Week(monday.isoformat(), len(pairs), f1, same)


def _dices(one: Annotation, other: Annotation, iou: float) -> list[float]:
    shapes = [(one.lesions[a].shape, other.lesions[b].shape) for a, b in match(one.lesions, other.lesions, iou)]
    return [dice(a, b) for a, b in shapes if isinstance(a, RleMask) and isinstance(b, RleMask)]


def _labels(pairs: Sequence[tuple[Annotation, Annotation]], taxonomy: Taxonomy) -> np.ndarray:  # type: ignore[type-arg]
    """Readers × images: the most severe diagnosis of each reading by id; one past the last for no lesion."""
    return np.array([[_worst(reading, taxonomy) for reading in readings] for readings in zip(*pairs, strict=True)])


def _worst(reading: Annotation, taxonomy: Taxonomy) -> float:
    known = [taxonomy.resolve(x.diagnosis) for x in reading.lesions if x.diagnosis]
    worst = max(known, key=lambda diagnosis: (diagnosis.severity.rank, diagnosis.id), default=None)
    return float(worst.id if worst else len(taxonomy.diagnoses))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
