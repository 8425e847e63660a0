"""In which order work is offered: by expected harm, the chance of a missed malignancy times uncertainty times novelty.

The chance is what the newest reading leaves open: a certain benign reading leaves little, a certain malignant one that
nobody has confirmed leaves much. Novelty falls with the number of approved images of the same diagnosis. A reading
without any box counts with a prior, not as harmless.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from converters.annotation import Annotation, Finding, Lesion
from converters.label_studio.controls import Tier
from converters.taxonomy import Severity, Taxonomy
from review_workflow.policy import Order
from review_workflow.review import Review, WorkKey
from review_workflow.states import ReviewState

FIFO = 0.5
_PRIOR = 0.1
_UNKNOWN_SCORE = 0.8
_SENT_BACK = 0.9


def priority(
    review: Review,
    key: WorkKey,
    model: Annotation | None,
    approved: Mapping[str, int],
    taxonomy: Taxonomy,
    order: Order = Order.HARM,
) -> float:
    """How soon a piece of work should be done, in [0, 1], larger is sooner; the same for all under FIFO.

    `model` is the model's reading of the image, `approved` the number of approved images by diagnosis code.
    """
    if order is Order.FIFO:
        return FIFO
    if review.state is ReviewState.DISPUTED:
        return 1.0
    if key.round > 1:
        return _SENT_BACK
    reading = _reading(review, key, model)
    if reading is None:
        return FIFO
    chance = malignancy(reading, taxonomy)
    return round(chance * (0.5 + 0.5 * _uncertainty(chance)) * _novelty(reading, approved), 3)


def malignancy(reading: Annotation, taxonomy: Taxonomy) -> float:
    """The probability in [0, 1] that a reading leaves for a malignancy in the image."""
    if reading.finding is not Finding.LESIONS or not reading.lesions:
        return _PRIOR
    return max(_lesion_malignancy(lesion, taxonomy) for lesion in reading.lesions)


def _reading(review: Review, key: WorkKey, model: Annotation | None) -> Annotation | None:
    if key.tier is Tier.TECHNICIAN:
        return model
    below = review.readings(Tier.DERMATOLOGIST if key.tier is Tier.QA else Tier.TECHNICIAN)
    return below[0].annotation if below else model


def _lesion_malignancy(lesion: Lesion, taxonomy: Taxonomy) -> float:
    score = lesion.score if lesion.score is not None else _UNKNOWN_SCORE
    if lesion.diagnosis is not None:
        suspicious = taxonomy.resolve(lesion.diagnosis).malignant
    elif lesion.severity is not None:
        suspicious = lesion.severity != Severity.LOW
    else:
        return 0.5
    return score if suspicious else 1.0 - score


def _uncertainty(chance: float) -> float:
    if chance in (0.0, 1.0):
        return 0.0
    return -(chance * math.log2(chance) + (1 - chance) * math.log2(1 - chance))


def _novelty(reading: Annotation, approved: Mapping[str, int]) -> float:
    known = [approved.get(lesion.diagnosis, 0) for lesion in reading.lesions if lesion.diagnosis]
    rarest = min(known, default=0)
    return 1.0 / (1.0 + 0.1 * math.log1p(rarest))
