"""Whether a reading is suspicious of a malignancy: what is read twice, reaches QA, and counts as missed."""

from __future__ import annotations

from converters.annotation import Annotation, Finding
from converters.taxonomy import Severity, Taxonomy


def is_suspicious(annotation: Annotation, taxonomy: Taxonomy) -> bool:
    """Whether a reading holds a malignant diagnosis, or leaves it open at a severity above low."""
    return annotation.finding is Finding.LESIONS and any(
        _suspicious(lesion.diagnosis, lesion.severity, taxonomy) for lesion in annotation.lesions
    )


def _suspicious(diagnosis: str | None, severity: str | None, taxonomy: Taxonomy) -> bool:
    if diagnosis is not None:
        return taxonomy.resolve(diagnosis).malignant
    return severity is not None and severity != Severity.LOW
