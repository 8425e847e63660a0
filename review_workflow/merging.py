"""What several independent readings amount to under the policy: one consensus, or a dispute.

Readings agree where all say the same of the whole image, every lesion has a partner in each of them, and enough voices
are behind one label of each. Voices count the same, or as much as the estimate of Dawid and Skene gives their reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from converters.annotation import Annotation, Lesion, TruthLevel
from review_workflow import consensus
from review_workflow.consensus import Label
from review_workflow.policy import MaskMerge, Policy, Vote
from review_workflow.reliability import ReaderReliability


@dataclass(frozen=True, slots=True)
class Settled:
    """Readings that agree, as one: the consensus, and in a few words what it rests on."""

    reading: Annotation
    how: str


def settle(readings: Sequence[Annotation], policy: Policy, reliability: ReaderReliability | None) -> Settled | None:
    """The consensus of readings that agree beyond the policy, None where they do not; one reading stays as it is."""
    first, *others = readings
    if not others:
        return Settled(first, "one reader")
    groups = _partners(readings, policy.agreement.iou)
    if groups is None:
        return None
    authors = [reading.author for reading in readings]
    votes = [_vote(authors, group, policy, reliability) for group in groups]
    if any(not _enough(vote, group, policy) for vote, group in zip(votes, groups, strict=True)):
        return None
    by_staple = policy.merge.masks is MaskMerge.STAPLE
    lesions = tuple(consensus.fuse(group, vote, by_staple) for group, vote in zip(groups, votes, strict=True))
    return Settled(_as_consensus(first, readings, lesions), _how(votes, len(readings), policy, reliability))


def _partners(readings: Sequence[Annotation], iou: float) -> list[list[Lesion]] | None:
    """The lesions that all readings share, None where findings, numbers or places differ."""
    first, *others = readings
    if any(o.finding is not first.finding or len(o.lesions) != len(first.lesions) for o in others):
        return None
    groups = [list(group.values()) for group in consensus.grouped(readings, iou)]
    complete = all(len(group) == len(readings) for group in groups)
    close = all(a.box.iou(b.box) >= iou for group in groups for a, b in combinations(group, 2))
    return groups if complete and close else None


def _vote(
    authors: Sequence[str], group: Sequence[Lesion], policy: Policy, reliability: ReaderReliability | None
) -> Mapping[Label, float]:
    labels = [consensus.label(lesion) for lesion in group]
    if len(set(labels)) == 1:
        return {labels[0]: 1.0}
    if reliability is not None and _is_believed(policy, reliability):
        return reliability.shares(dict(zip(authors, labels, strict=True)))
    return consensus.majority(labels)


def _enough(vote: Mapping[Label, float], group: Sequence[Lesion], policy: Policy) -> bool:
    best = max(vote, key=lambda label: vote[label])
    named = any(consensus.label(lesion) == best for lesion in group)
    return named and vote[best] >= policy.agreement.diagnosis - 1e-9


def _is_believed(policy: Policy, reliability: ReaderReliability | None) -> bool:
    believed = reliability is not None and reliability.lesions >= policy.merge.after_lesions
    return believed and policy.merge.diagnosis is Vote.DAWID_SKENE


def _how(
    votes: Sequence[Mapping[Label, float]], readers: int, policy: Policy, reliability: ReaderReliability | None
) -> str:
    least = min((max(vote.values()) for vote in votes), default=1.0)
    if least == 1.0:
        return f"all {readers} readers"
    if reliability is not None and _is_believed(policy, reliability):
        return f"Dawid-Skene {least:.2f}, estimate {reliability.digest[:12]}"
    return f"majority {least:.2f} of {readers} readers"


def _as_consensus(first: Annotation, readings: Sequence[Annotation], lesions: tuple[Lesion, ...]) -> Annotation:
    return replace(
        first,
        lesions=lesions,
        level=TruthLevel.CONSENSUS,
        author=" + ".join(sorted({reading.author for reading in readings})),
        annotation_id="",
        created_at=max((r.created_at for r in readings if r.created_at), default=None),
        lead_time=None,
    )
