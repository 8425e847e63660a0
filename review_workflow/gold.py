"""Gold tasks: images of known truth among a reader's ordinary work, told apart by nobody, that measure the reader.

A gold task is a review of its own on a copy of an approved image. It ends with its reader's answer, so nothing of it
ever becomes truth; what it is stands only in the database.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from converters.annotation import Annotation, ImageRecord, Lesion, TruthLevel
from converters.label_studio.controls import Tier, Verdict
from review_workflow.decisions import POLICY_ACTOR, Setting
from review_workflow.measures import box_agreement, match
from review_workflow.policy import Level, Policy
from review_workflow.review import Answer, Decision, Event, Review, Work, WorkKey
from review_workflow.states import Happened, ReviewState
from review_workflow.suspicion import is_suspicious

_LEVELS = {
    Level.DERMATOLOGIST: TruthLevel.DERMATOLOGIST,
    Level.QA: TruthLevel.QA,
    Level.CONSENSUS: TruthLevel.CONSENSUS,
}
_DIGITS = re.compile(r"\d+(?=\D*$)")


@dataclass(frozen=True, slots=True)
class GoldScore:
    """How one reader did on gold tasks of one tier: F1, IoU and shares in [0, 1], None where nothing was to be said.

    `diagnosis_share` is the share of the found lesions that got the true label; images sent back are only counted.
    """

    author: str
    tier: Tier
    tasks: int
    sent_back: int
    box_f1: float | None
    mean_iou: float | None
    diagnosis_share: float | None
    malignant: int
    missed_malignant: int


@dataclass(frozen=True, slots=True)
class _Reading:
    sent_back: bool
    f1: float
    ious: tuple[float, ...]
    right: int
    malignant: bool
    missed: bool


def brings_gold(key: WorkKey, policy: Policy) -> bool:
    """Whether a piece of first-round work is one of those that bring a gold task along, as the policy draws it."""
    gold = policy.gold
    return int(key.tier) in gold.tiers and key.round == 1 and policy.draw(str(key), "gold") < gold.share


def candidates(reviews: Iterable[Review], reader: str | None, tier: Tier, policy: Policy) -> list[Review]:
    """The approved images whose truth is strong enough, those that the reader has never answered for first."""
    least = _LEVELS[policy.gold.level]
    fit = [r for r in reviews if r.truth is not None and r.truth.level >= least and r.readings(Tier.TECHNICIAN)]
    return sorted(fit, key=lambda r: (_was_seen(r, reader, tier), policy.draw(f"{r.image_id}:{reader}", "gold image")))


def compose(copy_id: str, source: Review, tier: Tier, reader: str | None) -> Decision:
    """A gold task on a copy of an approved image, in the tier's first round, as an ordinary one looks there.

    A dermatologist's starts from what the technician really said of the image.
    """
    assert source.truth is not None, "an approved review has a truth"
    known = replace(source.truth, image_id=copy_id)
    fresh = Review(copy_id, known=known).with_work(Work(WorkKey(copy_id, tier, 1, 1), reader))
    events: tuple[Event, ...] = (Event(Happened.REGISTERED, "ingest", "service"),)
    if tier is Tier.TECHNICIAN:
        return Decision(fresh, events)
    first = source.readings(Tier.TECHNICIAN)[0]
    key = WorkKey(copy_id, Tier.TECHNICIAN, 1, 1)
    annotation = replace(first.annotation, image_id=copy_id)
    said = replace(first, key=key, annotation=annotation, source=f"copy of {first.key}")
    return Decision(fresh.with_answer(said).moved(Happened.LABELLED), (*events, _copied(said)))


def unlike(name: str, is_taken: Callable[[str], bool], seed: str) -> str:
    """A file name of the same pattern with other last digits that nobody has; the name itself where it has none."""
    found = list(_DIGITS.finditer(name))
    if not found:
        return name
    digits = found[-1]
    for attempt in range(100):
        drawn = int(hashlib.sha256(f"{seed}:{attempt}".encode()).hexdigest(), 16)
        number = str(drawn % 10 ** len(digits[0])).zfill(len(digits[0]))
        other = f"{name[: digits.start()]}{number}{name[digits.end() :]}"
        if other != name and not is_taken(other):
            return other
    return name


def copied_record(record: ImageRecord, image_id: str, uri: str, is_taken: Callable[[str], bool]) -> ImageRecord:
    """What is known of a gold copy: all that is known of its source, under another id, place and name."""
    name = unlike(record.original_name, is_taken, image_id)
    return replace(record, image_id=image_id, uri=uri, original_name=name)


def score(reviews: Iterable[Review], setting: Setting) -> tuple[GoldScore, ...]:
    """Every reader's gold tasks against the known truths, by tier and name; unanswered tasks count nowhere."""
    found: dict[tuple[Tier, str], list[_Reading]] = defaultdict(list)
    for review in reviews:
        if review.known is not None and review.state is ReviewState.SCORED:
            answer = max(review.answers, key=lambda given: given.key.tier)
            found[answer.key.tier, answer.annotation.author].append(_measure(answer, review.known, setting))
    return tuple(_summed(tier, author, rows) for (tier, author), rows in sorted(found.items()))


def _measure(answer: Answer, known: Annotation, setting: Setting) -> _Reading:
    iou, said = setting.policy.agreement.iou, answer.annotation
    pairs = match(said.lesions, known.lesions, iou)
    malignant = is_suspicious(known, setting.taxonomy)
    return _Reading(
        sent_back=answer.verdict is Verdict.SEND_BACK,
        f1=box_agreement(said, known, iou).f1 if said.finding is known.finding else 0.0,
        ious=tuple(said.lesions[a].box.iou(known.lesions[b].box) for a, b in pairs),
        right=sum(_label(said.lesions[a]) == _label(known.lesions[b]) for a, b in pairs),
        malignant=malignant,
        missed=malignant and not is_suspicious(said, setting.taxonomy),
    )


def _label(lesion: Lesion) -> tuple[str | None, str | None]:
    return lesion.diagnosis, lesion.severity


def _summed(tier: Tier, author: str, rows: Sequence[_Reading]) -> GoldScore:
    read = [row for row in rows if not row.sent_back]
    ious = [iou for row in read for iou in row.ious]
    return GoldScore(
        author,
        tier,
        tasks=len(rows),
        sent_back=len(rows) - len(read),
        box_f1=sum(row.f1 for row in read) / len(read) if read else None,
        mean_iou=sum(ious) / len(ious) if ious else None,
        diagnosis_share=sum(row.right for row in read) / len(ious) if ious else None,
        malignant=sum(row.malignant for row in read),
        missed_malignant=sum(row.missed for row in read),
    )


def _copied(answer: Answer) -> Event:
    return Event(
        Happened.LABELLED,
        POLICY_ACTOR,
        "service",
        tier=answer.key.tier,
        key=answer.key,
        source=answer.source,
        after=answer.annotation,
    )


def _was_seen(review: Review, reader: str | None, tier: Tier) -> bool:
    authors = {answer.annotation.author for answer in review.answers}
    return reader in authors if reader else any(answer.key.tier is tier for answer in review.answers)
