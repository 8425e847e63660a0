"""How played readers answer: seeded, with the mistakes that real technicians and disagreeing dermatologists make."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from converters.annotation import Annotation, Finding, Lesion, Origin
from converters.geometry import ImageSize
from converters.label_studio.controls import Verdict
from converters.taxonomy import Taxonomy

_ACCEPTED_IOU = 0.75
_FOUND_IOU = 0.3


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares in [0, 1] of the images with lesions on which each event happens; each happens at least once."""

    shifted: float = 0.15
    missed: float = 0.08
    confused: float = 0.12
    disagreed: float = 0.25
    returned_by_qa: float = 0.06
    excluded: float = 0.05


@dataclass(frozen=True, slots=True)
class Script:
    """Which image ids each kind of event falls on; drawn once from the seed so that a resumed run plays the same."""

    shifted: frozenset[str] = frozenset()
    missed: frozenset[str] = frozenset()
    confused: frozenset[str] = frozenset()
    disagreed: frozenset[str] = frozenset()
    returned_by_qa: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader submits: boxes, the finding, and for reviewers a verdict with its reason."""

    lesions: tuple[Lesion, ...]
    finding: Finding
    verdict: Verdict | None = None
    reason: str = ""
    lead_time: float = field(default=12.0)


def draw_script(truths: Iterable[Annotation], shares: Shares, seed: int) -> Script:
    """The seeded choice of images for each event; mistakes fall on images with lesions, and never two on one image."""
    with_lesions = sorted(truth.image_id for truth in truths if truth.lesions)
    order = sorted(with_lesions, key=lambda image_id: _draw(seed, image_id))
    drawn: dict[str, frozenset[str]] = {}
    for event in Script.__dataclass_fields__:
        count = max(1, round(getattr(shares, event) * len(with_lesions)))
        drawn[event], order = frozenset(order[:count]), order[count:]
    return Script(**drawn)


def technician(truth: Annotation, size: ImageSize, script: Script, taxonomy: Taxonomy, returned: bool) -> Reading:
    """The technician's boxes: the truth, or the scripted mistake on the first attempt."""
    lesions = truth.lesions
    if not returned and truth.image_id in script.missed:
        lesions = lesions[1:]
    elif not returned and truth.image_id in script.shifted:
        lesions = tuple(_shifted(lesion, size, truth.image_id) for lesion in lesions)
    elif not returned and truth.image_id in script.confused:
        lesions = (_confused(lesions[0], taxonomy), *lesions[1:])
    finding = truth.finding if lesions or truth.finding is not Finding.LESIONS else Finding.LESION_FREE
    return Reading(lesions, finding)


def dermatologist(
    truth: Annotation, shown: Sequence[Lesion], script: Script, taxonomy: Taxonomy, dissents: bool
) -> Reading:
    """A dermatologist's verdict on what the technician marked; `dissents` makes this reader contradict the truth."""
    if dissents and truth.image_id in script.disagreed:
        return Reading((_confused(truth.lesions[0], taxonomy), *truth.lesions[1:]), truth.finding, Verdict.CORRECT)
    if missing := _missing(truth.lesions, shown):
        reason = f"{missing} lesion{'s are' if missing > 1 else ' is'} not marked."
        return Reading(tuple(shown), _finding_of(shown, truth), Verdict.SEND_BACK, reason)
    if _same(truth.lesions, shown):
        return Reading(tuple(shown), truth.finding, Verdict.ACCEPT)
    return Reading(truth.lesions, truth.finding, Verdict.CORRECT)


def quality_reader(truth: Annotation, readings: Sequence[Sequence[Lesion]], script: Script, returned: bool) -> Reading:
    """The QA reader's decision on one reading, or on several that contradict one another."""
    shown = tuple(readings[0]) if readings else ()
    if truth.image_id in script.excluded:
        return Reading(shown, _finding_of(shown, truth), Verdict.EXCLUDE, "The picture is out of focus.")
    if truth.image_id in script.returned_by_qa and not returned:
        reason = "Please draw the border tighter and check the diagnosis."
        return Reading(shown, _finding_of(shown, truth), Verdict.SEND_BACK, reason)
    if len(readings) == 1 and _same(truth.lesions, shown):
        return Reading(shown, truth.finding, Verdict.APPROVE)
    return Reading(truth.lesions, truth.finding, Verdict.CORRECT)


def with_origin(lesions: Sequence[Lesion], suggested: Sequence[Lesion]) -> tuple[Lesion, ...]:
    """The lesions marked as kept, changed or drawn anew, as Label Studio records what became of a suggestion."""
    return tuple(_origin_of(lesion, number, suggested) for number, lesion in enumerate(lesions))


def _origin_of(lesion: Lesion, number: int, suggested: Sequence[Lesion]) -> Lesion:
    bare = replace(lesion, score=None, probabilities=(), region_id=f"r{number}", shape=None)
    best = max(suggested, key=lambda other: lesion.box.iou(other.box), default=None)
    if best is None or lesion.box.iou(best.box) < _FOUND_IOU:
        return replace(bare, origin=Origin.MANUAL)
    kept = lesion.box.iou(best.box) > 0.99 and lesion.diagnosis == best.diagnosis
    return replace(bare, origin=Origin.PREDICTION if kept else Origin.PREDICTION_CHANGED)


def _missing(truth: Sequence[Lesion], shown: Sequence[Lesion]) -> int:
    return sum(all(lesion.box.iou(other.box) < _FOUND_IOU for other in shown) for lesion in truth)


def _same(truth: Sequence[Lesion], shown: Sequence[Lesion]) -> bool:
    return len(truth) == len(shown) and all(
        any(lesion.box.iou(other.box) >= _ACCEPTED_IOU and lesion.diagnosis == other.diagnosis for other in shown)
        for lesion in truth
    )


def _finding_of(shown: Sequence[Lesion], truth: Annotation) -> Finding:
    if shown:
        return Finding.LESIONS
    return Finding.LESION_FREE if truth.finding is Finding.LESIONS else truth.finding


def _shifted(lesion: Lesion, size: ImageSize, image_id: str) -> Lesion:
    chance = random.Random(image_id)
    dx = chance.choice((-1, 1)) * chance.uniform(0.25, 0.4) * lesion.box.width
    dy = chance.choice((-1, 1)) * chance.uniform(0.1, 0.25) * lesion.box.height
    moved = lesion.box.moved(dx, dy).clipped(size)
    return replace(lesion, box=moved if moved.area > 0 else lesion.box, shape=None)


def _confused(lesion: Lesion, taxonomy: Taxonomy) -> Lesion:
    wrong = {"mel": "nv", "nv": "mel", "bkl": "nv", "bcc": "akiec", "akiec": "bcc", "df": "nv", "vasc": "df"}
    other = taxonomy.resolve(wrong.get(lesion.diagnosis or "", taxonomy.codes[0]))
    return replace(lesion, diagnosis=other.code, severity=other.severity.value)


def _draw(seed: int, image_id: str) -> str:
    return hashlib.sha256(f"{seed}:{image_id}".encode()).hexdigest()
