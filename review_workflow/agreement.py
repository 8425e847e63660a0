"""Whether a reader left what they were shown as it was, and whether a reading is suspicious."""

from __future__ import annotations

from converters import truth
from converters.annotation import Annotation, Finding
from converters.taxonomy import Severity, Taxonomy


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
