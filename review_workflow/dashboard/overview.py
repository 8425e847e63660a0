"""The numbers of the front page, worked out from stored reviews."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.label_studio.controls import Tier
from converters.taxonomy import Taxonomy
from review_workflow.measures import Interval, box_agreement, krippendorff_alpha, with_interval
from review_workflow.review import Review

_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class ReaderAgreement:
    """How well independent readers of the same images agree: boxes by F1 and IoU, diagnoses by alpha with interval."""

    images: int
    f1: float | None
    mean_iou: float | None
    alpha: Interval | None


def measure(reviews: Sequence[Review], taxonomy: Taxonomy, iou: float) -> ReaderAgreement:
    """Agreement over the images that at least two readers have read."""
    double = [review for review in reviews if len(review.readings(Tier.DERMATOLOGIST)) > 1]
    if not double:
        return ReaderAgreement(0, None, None, None)
    boxes = []
    for review in double:
        one, other = (answer.annotation for answer in review.readings(Tier.DERMATOLOGIST)[:2])
        boxes.append(box_agreement(one, other, iou))
    f1 = sum(found.f1 for found in boxes) / len(boxes)
    mean_iou = sum(found.mean_iou for found in boxes) / len(boxes)
    alpha = with_interval(krippendorff_alpha, _labels(double, taxonomy), _RESAMPLES)
    return ReaderAgreement(len(double), f1, mean_iou, alpha)


def _labels(reviews: Sequence[Review], taxonomy: Taxonomy) -> np.ndarray:  # type: ignore[type-arg]
    """Readers × images: the most severe diagnosis of each reading by id; one past the last for no lesion."""
    rows = np.full((2, len(reviews)), np.nan)
    for column, review in enumerate(reviews):
        for row, answer in enumerate(review.readings(Tier.DERMATOLOGIST)[:2]):
            known = [taxonomy.resolve(x.diagnosis) for x in answer.annotation.lesions if x.diagnosis]
            worst = max(known, key=lambda diagnosis: (diagnosis.severity.rank, diagnosis.id), default=None)
            rows[row, column] = worst.id if worst else len(taxonomy.diagnoses)
    return rows
