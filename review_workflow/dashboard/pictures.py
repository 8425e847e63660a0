"""An image with everybody's boxes as one SVG overlay: who drew which box is told by colour and by number."""

from __future__ import annotations

from dataclasses import dataclass

from converters.annotation import ImageRecord
from converters.taxonomy import Taxonomy
from review_workflow.people import TIER_ROLES
from review_workflow.presentation import summary
from review_workflow.review import Review

_COLOURS = ("#0b6bcb", "#c2185b", "#2e7d32", "#b45309", "#6d28d9", "#0f766e")


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the image."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class DrawnReading:
    """One answer as it is drawn: its colour, who gave it, what it says, and its boxes."""

    number: int
    colour: str
    who: str
    says: str
    verdict: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image and all answers of its newest rounds, ready to be drawn."""

    image_id: str
    name: str
    width: int
    height: int
    state: str
    synthetic: bool
    readings: tuple[DrawnReading, ...]


def draw(review: Review, record: ImageRecord, taxonomy: Taxonomy) -> Picture:
    """The picture of a review with the newest round's answers of every tier."""
    answers = [answer for tier in TIER_ROLES for answer in review.readings(tier)]
    readings = tuple(
        DrawnReading(
            number,
            _COLOURS[(number - 1) % len(_COLOURS)],
            f"{TIER_ROLES[answer.key.tier]} {answer.annotation.author}",
            summary(answer.annotation, taxonomy),
            answer.verdict.value if answer.verdict else "",
            tuple(Box(x.box.x_min, x.box.y_min, x.box.width, x.box.height) for x in answer.annotation.lesions),
        )
        for number, answer in enumerate(answers, start=1)
    )
    name = record.original_name or record.image_id[:12]
    size = record.size
    return Picture(record.image_id, name, size.width, size.height, review.state.value, record.synthetic, readings)
