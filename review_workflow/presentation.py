"""What a reader sees of a piece of work in Label Studio: the columns, the note on top, the boxes drawn before."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from converters.annotation import Annotation, Finding, ImageRecord
from converters.label_studio.controls import QUALITY, TaskField, Tier
from converters.label_studio.results import box_label
from converters.taxonomy import Taxonomy
from review_workflow.decisions import Setting, is_blind, shown
from review_workflow.people import TIER_ROLES
from review_workflow.review import Answer, Review, Work, WorkStatus
from review_workflow.states import ReviewState

PRELOADED = {Tier.DERMATOLOGIST: "technician's reading", Tier.QA: "readers' proposal"}
"""Model version of the boxes a reader starts from: Label Studio pre-loads exactly one version for each project."""

_BLIND_LABELLING = "Blind reading: no box is suggested. Outline and name every lesion."
_LOCAL_FILES = "/data/local-files/?d="


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Boxes that are drawn before the reader starts, and whose they are."""

    model_version: str
    annotation: Annotation


@dataclass(frozen=True, slots=True)
class Resumed:
    """Earlier work that its reader goes on with: it lies on their desk as a draft, since it is nobody's suggestion."""

    reader: str
    annotation: Annotation


@dataclass(frozen=True, slots=True)
class TaskDraft:
    """A Label Studio task as it should be: its columns in order and its suggestions, the pre-loaded one first."""

    columns: tuple[tuple[str, str | float], ...]
    suggestions: tuple[Suggestion, ...] = ()
    resumed: Resumed | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the columns, in hexadecimal; suggestions never change after the task was made."""
        return hashlib.sha256(orjson.dumps(self.columns)).hexdigest()


def draft(review: Review, work: Work, record: ImageRecord, setting: Setting, priority: float = 0.5) -> TaskDraft:
    """The task for a piece of work, as its reader should see it now."""
    columns: dict[str, str | float] = {
        TaskField.IMAGE: image_address(record),
        TaskField.IMAGE_ID: record.image_id,
        TaskField.KEY: str(work.key),
        TaskField.NAME: record.original_name,
        TaskField.STATE: _state(review, work),
        TaskField.ASSIGNEE: work.assignee or "",
        TaskField.REASON: work.reason,
        TaskField.NOTE: note(review, work, record, setting),
        TaskField.PRIORITY: priority,
        TaskField.SYNTHETIC: "synthetic" if record.synthetic else "",
        TaskField.BLIND: "blind" if is_blind(work.key, setting.policy) else "",
    }
    rows = tuple((str(name), value) for name, value in columns.items())
    return TaskDraft(rows, suggestions(review, work, setting), resumed(review, work, setting))


def image_address(record: ImageRecord) -> str:
    """Where Label Studio finds the image: an address as it is, a path of the home folder through its file server."""
    return record.uri if "://" in record.uri else f"{_LOCAL_FILES}{record.uri}"


def note(review: Review, work: Work, record: ImageRecord, setting: Setting) -> str:
    """What the reader has to know before they start, most urgent first."""
    parts = [f"Not counted: {work.told}"] if work.told else []
    parts += [f"Sent back by {work.reason}"] if work.reason else []
    parts += _story(review, work, setting)
    parts += ["Synthetic image."] if record.synthetic else []
    return "\n".join(parts)


def suggestions(review: Review, work: Work, setting: Setting) -> tuple[Suggestion, ...]:
    """The boxes drawn before the reader starts: what they begin from, then each reading by name where they differ."""
    tier = work.key.tier
    begin = shown(review, work.key, setting)
    if begin is None:
        return ()
    if tier is Tier.TECHNICIAN:
        answer = review.newest(Tier.TECHNICIAN)
        return (Suggestion(_signed(answer), begin),) if answer else ()
    disputed = review.readings(Tier.DERMATOLOGIST) if review.state is ReviewState.DISPUTED else ()
    named = tuple(Suggestion(_signed(answer), answer.annotation) for answer in disputed if tier is Tier.QA)
    return (Suggestion(PRELOADED[tier], begin), *named)


def resumed(review: Review, work: Work, setting: Setting) -> Resumed | None:
    """The boxes that a technician finds again as their draft when work comes back, None for any other work."""
    if work.key.tier is not Tier.TECHNICIAN or work.assignee is None or work.status is not WorkStatus.WAITING:
        return None
    begin = shown(review, work.key, setting)
    return Resumed(work.assignee, begin) if begin else None


def summary(annotation: Annotation, taxonomy: Taxonomy) -> str:
    """A reading in a few words, such as `2 × Melanocytic nevus, Melanoma` or `lesion-free`."""
    if annotation.finding is not Finding.LESIONS:
        return annotation.finding.value
    counts = Counter(box_label(lesion, taxonomy) for lesion in annotation.lesions)
    return ", ".join(f"{count} × {name}" if count > 1 else name for name, count in sorted(counts.items()))


def _signed(answer: Answer) -> str:
    """Ends with what tells two readers apart, because Label Studio shortens the middle."""
    signed = f"{TIER_ROLES[answer.key.tier]}: {answer.annotation.author} round {answer.key.round}"
    return f"{signed}, reader {answer.key.slot}" if answer.key.tier is Tier.DERMATOLOGIST else signed


def _story(review: Review, work: Work, setting: Setting) -> list[str]:
    if work.key.tier is Tier.TECHNICIAN and work.key.round > 1:
        return ["Correct your earlier boxes: they are drawn as your draft."]
    if work.key.tier is Tier.TECHNICIAN:
        return [_BLIND_LABELLING if is_blind(work.key, setting.policy) else "Outline and name every lesion."]
    if is_blind(work.key, setting.policy):
        return ["Blind reading: outline and name what you see, then accept."]
    first = review.readings(Tier.TECHNICIAN)
    told = [_said(answer, setting) for answer in first]
    if work.key.tier is Tier.DERMATOLOGIST:
        return told
    readers = [_said(answer, setting, first) for answer in review.readings(Tier.DERMATOLOGIST)]
    if work.status is not WorkStatus.WAITING:
        return [*told, *readers]
    outcome = "The readers disagree." if review.state is ReviewState.DISPUTED else "The readers agree."
    return [outcome if len(readers) > 1 else "One reader.", *told, *readers]


def _said(answer: Answer, setting: Setting, first: Sequence[Answer] = ()) -> str:
    """One reader's line; what the technician said is not spelled out again, so that the image keeps its room."""
    annotation = answer.annotation
    found = summary(annotation, setting.taxonomy)
    same = any(found == summary(earlier.annotation, setting.taxonomy) for earlier in first)
    verdict = f"{answer.verdict.lower()}: " if answer.verdict else ""
    quality = dict(annotation.answers).get(QUALITY)
    tail = f" · quality {quality.lower()}" if quality else ""
    reason = f" · “{answer.reason}”" if answer.reason else ""
    who = f"{TIER_ROLES[answer.key.tier].capitalize()} {annotation.author}"
    if answer.key.tier is Tier.DERMATOLOGIST:
        who = f"{who} (reader {answer.key.slot})"
    return f"{who}: {verdict}{'what the technician names' if same else found}{tail}{reason}"


def _state(review: Review, work: Work) -> str:
    return "closed" if work.status is WorkStatus.CANCELLED else review.state.value
