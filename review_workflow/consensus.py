"""One reading out of several that agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from converters.annotation import Annotation, Lesion, Origin, TruthLevel
from converters.geometry import PixelBox


def merge(readings: Sequence[Annotation], at: datetime | None = None) -> Annotation:
    """The consensus of agreeing readings: the first one's lesions with each box at the mean of its partners' edges.

    Levels: one reading keeps its own, several become CONSENSUS. The readings must agree (`agreement.all_agree`).
    """
    first, *others = readings
    if not others:
        return first
    lesions = tuple(_merged(lesion, others) for lesion in first.lesions)
    authors = sorted({reading.author for reading in readings})
    return replace(
        first,
        lesions=lesions,
        level=TruthLevel.CONSENSUS,
        author=" + ".join(authors),
        annotation_id="",
        created_at=at or max((r.created_at for r in readings if r.created_at), default=None),
        lead_time=None,
    )


def _merged(lesion: Lesion, others: Sequence[Annotation]) -> Lesion:
    partners = [max(other.lesions, key=lambda candidate: lesion.box.iou(candidate.box)) for other in others]
    boxes = [lesion.box, *(partner.box for partner in partners)]
    edges = ((b.x_min, b.y_min, b.x_max, b.y_max) for b in boxes)
    mean = PixelBox(*(sum(side) / len(boxes) for side in zip(*edges, strict=True)))
    return replace(lesion, box=mean, shape=None, origin=Origin.MANUAL)
