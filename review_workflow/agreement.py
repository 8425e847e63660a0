"""Whether two readings say the same, and whether a reader left what they were shown as it was."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from converters import truth
from converters.annotation import Annotation, Finding
from converters.taxonomy import Severity, Taxonomy


def all_agree(readings: Sequence[Annotation], iou: float) -> bool:
    """Whether every two readings say the same: equal findings, lesions that pair off by label and overlap."""
    return all(truth.agree(one, other, iou) for one, other in combinations(readings, 2))


def is_unchanged(shown: Annotation, answer: Annotation, iou: float) -> bool:
    """Whether an answer repeats what was shown: same finding, same labels, boxes in place to within `iou`."""
    return truth.agree(shown, answer, iou)


def is_suspicious(annotation: Annotation, taxonomy: Taxonomy) -> bool:
    """Whether a reading holds a malignant diagnosis, or leaves it open at a severity above low."""
    return annotation.finding is Finding.LESIONS and any(
        _suspicious(lesion.diagnosis, lesion.severity, taxonomy) for lesion in annotation.lesions
    )


def _suspicious(diagnosis: str | None, severity: str | None, taxonomy: Taxonomy) -> bool:
    if diagnosis is not None:
        return taxonomy.resolve(diagnosis).malignant
    return severity is not None and severity != Severity.LOW
