"""How good each reader is, measured against what was approved in the end, and how often wrong suggestions pass.

The rubber-stamp index of a reader is the share of wrong suggestions that they left as they were. In tier 2 the
suggestion is the technician's reading, wrong where it differs from the truth; the blind arm says how often the reader
makes the same mistake without having seen it. In tier 1 it is the model's, of which only the outcome is known: left as
it was and wrong in the end, or changed.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from converters.annotation import Annotation
from converters.label_studio.controls import Tier, Verdict
from converters.truth import agree
from review_workflow.decisions import Setting
from review_workflow.measures import box_agreement
from review_workflow.review import Answer, Review
from review_workflow.suspicion import is_suspicious

_JUDGED = (Tier.TECHNICIAN, Tier.DERMATOLOGIST)


@dataclass(frozen=True, slots=True)
class ReaderQuality:
    """One reader in one tier against the approved truths: shares in [0, 1], counts of images, median seconds.

    The blind arm counts apart: wrong readings of the tier below that were not shown, and how many were made again.
    """

    author: str
    tier: Tier
    judged: int
    box_f1: float
    same_share: float
    malignant: int
    missed_malignant: int
    wrong_suggestions: int
    passed_wrong: int
    blind: int = 0
    blind_wrong: int = 0
    blind_repeated: int = 0
    seconds_shown: float | None = None
    seconds_blind: float | None = None

    @property
    def rubber_stamp(self) -> float | None:
        """Share of wrong suggestions left as they were; None where there was no wrong one."""
        return self.passed_wrong / self.wrong_suggestions if self.wrong_suggestions else None

    @property
    def blind_stamp(self) -> float | None:
        """Share of the same mistakes made without seeing them: what of the rubber stamp is no rubber stamp."""
        return self.blind_repeated / self.blind_wrong if self.blind_wrong else None


@dataclass(frozen=True, slots=True)
class _Judgement:
    f1: float
    same: bool
    malignant: bool
    missed: bool
    blind: bool
    wrong_suggestion: bool
    passed: bool
    seconds: float | None


def judge(reviews: Iterable[Review], setting: Setting) -> tuple[ReaderQuality, ...]:
    """Every technician and dermatologist against the truths of these reviews (those without truth are left out)."""
    found: dict[tuple[Tier, str], list[_Judgement]] = defaultdict(list)
    for review in reviews:
        if review.truth is None:
            continue
        for answer in (answer for tier in _JUDGED for answer in review.readings(tier)):
            if answer.verdict is not Verdict.SEND_BACK:
                judgement = _judge(review, answer, review.truth, setting)
                found[answer.key.tier, answer.annotation.author].append(judgement)
    return tuple(_summed(tier, author, rows) for (tier, author), rows in sorted(found.items()))


def _judge(review: Review, answer: Answer, truth: Annotation, setting: Setting) -> _Judgement:
    iou, reading = setting.policy.agreement.iou, answer.annotation
    same = agree(reading, truth, iou)
    malignant = is_suspicious(truth, setting.taxonomy)
    wrong, passed = _about_suggestion(review, answer, truth, iou, same)
    return _Judgement(
        f1=box_agreement(reading, truth, iou).f1,
        same=same,
        malignant=malignant,
        missed=malignant and not is_suspicious(reading, setting.taxonomy),
        blind=answer.blind,
        wrong_suggestion=wrong,
        passed=passed,
        seconds=reading.lead_time,
    )


def _about_suggestion(review: Review, answer: Answer, truth: Annotation, iou: float, same: bool) -> tuple[bool, bool]:
    """Whether the suggestion was wrong, and whether it passed (in the blind arm: whether the mistake was repeated)."""
    below = review.newest(Tier.TECHNICIAN) if answer.key.tier is Tier.DERMATOLOGIST else None
    if below is not None:
        wrong = not agree(below.annotation, truth, iou)
        repeated = agree(answer.annotation, below.annotation, iou) if answer.blind else not answer.changed
        return wrong, wrong and repeated
    started = answer.annotation.model_version is not None and not answer.blind
    passed = started and not answer.changed and not same
    return passed or (started and answer.changed), passed


def _summed(tier: Tier, author: str, rows: Sequence[_Judgement]) -> ReaderQuality:
    shown, blind = [row for row in rows if not row.blind], [row for row in rows if row.blind]
    return ReaderQuality(
        author,
        tier,
        judged=len(rows),
        box_f1=sum(row.f1 for row in rows) / len(rows),
        same_share=sum(row.same for row in rows) / len(rows),
        malignant=sum(row.malignant for row in rows),
        missed_malignant=sum(row.missed for row in rows),
        wrong_suggestions=sum(row.wrong_suggestion for row in shown),
        passed_wrong=sum(row.passed for row in shown),
        blind=len(blind),
        blind_wrong=sum(row.wrong_suggestion for row in blind),
        blind_repeated=sum(row.passed for row in blind),
        seconds_shown=_median(shown),
        seconds_blind=_median(blind),
    )


def _median(rows: Sequence[_Judgement]) -> float | None:
    times = [row.seconds for row in rows if row.seconds is not None]
    return statistics.median(times) if times else None
