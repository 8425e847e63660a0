"""What a model's suggestions save or cost: regions kept, moved or drawn anew, and time, by model version."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from converters.annotation import Origin
from converters.label_studio.controls import Tier
from review_workflow.review import Answer, Review

WITHOUT = "no suggestion"


@dataclass(frozen=True, slots=True)
class ModelEffort:
    """The technicians' first answers that started from one model version (or from nothing).

    Regions by origin: kept as suggested, moved or renamed, drawn by hand. `seconds` is the median for an image.
    """

    model_version: str
    answers: int
    changed_share: float
    kept: int
    moved: int
    drawn: int
    seconds: float | None

    @property
    def regions(self) -> int:
        """All regions of these answers."""
        return self.kept + self.moved + self.drawn


def effort(reviews: Iterable[Review]) -> tuple[ModelEffort, ...]:
    """The correction effort by model version, without a suggestion last."""
    groups: dict[str, list[Answer]] = defaultdict(list)
    for answer in (answer for review in reviews for answer in review.answers):
        if answer.key.tier is Tier.TECHNICIAN and answer.key.round == 1:
            started_from = None if answer.blind else answer.annotation.model_version
            groups[started_from or WITHOUT].append(answer)
    ordered = sorted(groups.items(), key=lambda group: (group[0] == WITHOUT, group[0]))
    return tuple(_effort(version, answers) for version, answers in ordered)


def _effort(version: str, answers: Sequence[Answer]) -> ModelEffort:
    origins = Counter(lesion.origin for answer in answers for lesion in answer.annotation.lesions)
    times = [a.annotation.lead_time for a in answers if a.annotation.lead_time is not None]
    return ModelEffort(
        version,
        len(answers),
        changed_share=sum(answer.changed for answer in answers) / len(answers),
        kept=origins[Origin.PREDICTION],
        moved=origins[Origin.PREDICTION_CHANGED],
        drawn=origins[Origin.MANUAL],
        seconds=statistics.median(times) if times else None,
    )
