"""One truth for each image out of everybody's annotations: by declared precedence, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC

from converters.annotation import Annotation, Finding, Lesion, TruthLevel
from converters.errors import AmbiguousTruthError


@dataclass(frozen=True, slots=True)
class TruthPolicy:
    """Which annotations may be truth and when two of equal standing count as the same.

    Annotations below `minimum` never become truth. Two readings agree when findings are equal and every lesion has a
    partner of the same diagnosis with an IoU of at least `agreement_iou`.
    """

    minimum: TruthLevel = TruthLevel.QA
    agreement_iou: float = 0.5


@dataclass(frozen=True, slots=True)
class Resolution:
    """The outcome for a set of images: truths in image order, and those that had none or were ambiguous."""

    truths: tuple[Annotation, ...] = ()
    without_truth: tuple[str, ...] = ()
    ambiguous: tuple[AmbiguousTruthError, ...] = field(default=())


def resolve(image_id: str, annotations: Sequence[Annotation], policy: TruthPolicy) -> Annotation | None:
    """The one annotation that holds for an image, or None where nobody of sufficient standing has answered.

    The highest level wins; of one author only the newest answer counts, whatever its place in the list. Answers without
    an author, or of one author at the same moment, stand beside one another. Raises AmbiguousTruthError where answers
    of the winning level disagree.
    """
    eligible = [a for a in annotations if not a.draft and a.level >= policy.minimum and _is_answer(a)]
    if not eligible:
        return None
    if len(eligible) == 1:
        return eligible[0]
    level = max(annotation.level for annotation in eligible)
    first, *others = _newest_by_author(a for a in eligible if a.level == level)
    for other in others:
        if not agree(first, other, policy.agreement_iou):
            raise AmbiguousTruthError(
                f"image {image_id}",
                [first.author, other.author],
                f"one answer at level {level.name.lower()}",
                "Adjudicate the image in the QA tier.",
            )
    return first


def resolve_all(annotations: Iterable[Annotation], policy: TruthPolicy) -> Resolution:
    """The truths of all images that occur in the annotations, sorted by image id."""
    by_image: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        by_image.setdefault(annotation.image_id, []).append(annotation)
    truths, missing, ambiguous = [], [], []
    for image_id, found in sorted(by_image.items()):
        try:
            truth = resolve(image_id, found, policy)
        except AmbiguousTruthError as error:
            ambiguous.append(error)
            continue
        if truth is None:
            missing.append(image_id)
        else:
            truths.append(truth)
    return Resolution(tuple(truths), tuple(missing), tuple(ambiguous))


def agree(one: Annotation, other: Annotation, iou: float) -> bool:
    """Whether two readings say the same: equal findings, and lesions that pair off by diagnosis and overlap."""
    if one.finding != other.finding or len(one.lesions) != len(other.lesions):
        return False
    left = list(other.lesions)
    for lesion in one.lesions:
        partner = max(left, key=lambda candidate: _likeness(lesion, candidate), default=None)
        if partner is None or _likeness(lesion, partner) < iou:
            return False
        left.remove(partner)
    return True


def _likeness(one: Lesion, other: Lesion) -> float:
    same = (one.diagnosis, one.severity) == (other.diagnosis, other.severity)
    return one.box.iou(other.box) if same else -1.0


def _is_answer(annotation: Annotation) -> bool:
    return annotation.finding is not Finding.NOT_LOOKED_AT


def _newest_by_author(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Every author's newest answers, sorted; several of one author only where none of them can be called newer."""
    by_author: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        by_author.setdefault(annotation.author, []).append(annotation)
    newest: list[Annotation] = []
    for author, answers in sorted(by_author.items()):
        last = max(map(_moment, answers))
        newest += answers if author == "" else [a for a in answers if _moment(a) == last]
    return sorted(newest, key=lambda a: (a.author, a.annotation_id, repr(a)))


def _moment(annotation: Annotation) -> float:
    moment = annotation.created_at
    if moment is None:
        return float("-inf")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
