"""The dashboard's numbers and shapes: agreement by week, columns and lines that stay inside their chart."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pytest
from builders_review import ANNA, BEN, SIZE, TAXONOMY, a_lesion

from converters.annotation import Annotation, Finding
from converters.geometry import RleMask
from converters.label_studio.controls import Tier
from review_workflow.dashboard import charts
from review_workflow.dashboard.overview import ReaderAgreement, Week, measure, weekly
from review_workflow.review import Answer, Review, Work, WorkKey, WorkStatus


def read_twice(image: str, one: str, other: str, day: int, mask: RleMask | None = None) -> Review:
    """An image that two dermatologists called by these diagnoses on a day of January 2026."""
    answers, works = [], []
    for slot, (person, diagnosis) in enumerate(((ANNA, one), (BEN, other)), start=1):
        key = WorkKey(image, Tier.DERMATOLOGIST, 1, slot)
        moment = datetime(2026, 1, day, tzinfo=UTC)
        lesion = replace(a_lesion(diagnosis), shape=mask)
        answers.append(
            Answer(key, Annotation(image, Finding.LESIONS, (lesion,), author=person.email, created_at=moment))
        )
        works.append(Work(key, person.email, WorkStatus.ANSWERED))
    return Review(image, works=tuple(works), answers=tuple(answers))


def test_agreement_is_told_by_week() -> None:
    reviews = [read_twice("1", "nv", "nv", 5), read_twice("2", "nv", "mel", 11), read_twice("3", "mel", "mel", 12)]
    assert weekly(reviews, TAXONOMY, 0.5) == (Week("2026-01-05", 2, 1.0, 0.5), Week("2026-01-12", 1, 1.0, 1.0))


def test_agreement_has_kappa_alpha_and_dice_where_masks_were_painted() -> None:
    mask = RleMask.from_array(np.ones((SIZE.height, SIZE.width), bool))
    reviews = [read_twice("1", "nv", "nv", 5, mask), read_twice("2", "mel", "mel", 5), read_twice("3", "nv", "mel", 5)]
    found = measure(reviews, TAXONOMY, 0.5)
    assert (found.images, found.f1, found.mean_iou, found.dice) == (3, 1.0, 1.0, 1.0)
    assert found.kappa == pytest.approx(0.4)
    assert found.alpha is not None and found.alpha.low <= found.alpha.value <= found.alpha.high
    assert measure([], TAXONOMY, 0.5) == ReaderAgreement(0)


def test_columns_stand_on_every_day_and_stay_inside() -> None:
    drawn = charts.columns([("2026-01-09", (3, 0, 1)), ("2026-01-10", (8, 0, 0))], date(2026, 1, 10), 3)
    assert [(column.name, column.total) for column in drawn] == [("01-08", 0), ("01-09", 4), ("01-10", 8)]
    assert [segment.series for segment in drawn[1].segments] == [0, 2]
    assert all(s.y >= 0 and s.y + s.height <= charts.HEIGHT for column in drawn for s in column.segments)
    assert drawn[2].top < drawn[1].top


def test_lines_leave_out_what_was_not_measured_and_stay_inside() -> None:
    chart = charts.lines(["a", "b", "c"], [("F1", [0.5, None, 1.0])])
    (line,) = chart.lines
    assert [dot.title for dot in line.dots] == ["a: F1 0.50", "c: F1 1.00"]
    assert line.dots[1].y < line.dots[0].y < charts.HEIGHT
    assert line.path.count(",") == 2
