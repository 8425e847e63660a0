"""One reading out of several: boxes fused by weight, diagnoses by vote or by reliability, masks by STAPLE.

Sources: weighted box fusion, Solovyev et al. 2021 (doi:10.1016/j.imavis.2021.104117); reader reliability, Dawid and
Skene 1979 (doi:10.2307/2346806); STAPLE, Warfield et al. 2004 (doi:10.1109/TMI.2004.828354).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from converters.annotation import Annotation, Lesion, Origin, TruthLevel
from converters.geometry import PixelBox
from review_workflow.measures import match

_ROUNDS = 200
_CLOSE = 1e-7
_FLOOR = 1e-12


@dataclass(frozen=True, slots=True)
class Reliability:
    """Dawid and Skene's estimate: posterior (units × labels), and each reader's confusion (readers × true × said)."""

    posterior: NDArray[np.float64]
    confusion: NDArray[np.float64]
    prevalence: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Staple:
    """STAPLE's estimate: probability of foreground for each pixel, sensitivity and specificity of each reader."""

    probability: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]


def merge(readings: Sequence[Annotation], iou: float = 0.5, at: datetime | None = None) -> Annotation:
    """The consensus of agreeing readings: fused boxes under the majority's label, everybody's labels as soft label.

    One reading stays as it is; of several the level is CONSENSUS. The readings must agree (`agreement.all_agree`).
    """
    first, *others = readings
    if not others:
        return first
    lesions = tuple(fuse(group) for group in _groups(first, others, iou))
    return replace(
        first,
        lesions=lesions,
        level=TruthLevel.CONSENSUS,
        author=" + ".join(sorted({reading.author for reading in readings})),
        annotation_id="",
        created_at=at or max((r.created_at for r in readings if r.created_at), default=None),
        lead_time=None,
    )


def fuse(lesions: Sequence[Lesion], weights: Sequence[float] | None = None) -> Lesion:
    """One lesion for several readings of it: the weighted mean box, the label most weight is behind, the soft label."""
    shares = np.asarray(weights if weights is not None else [1.0] * len(lesions), dtype=float)
    edges = np.array([[x.box.x_min, x.box.y_min, x.box.x_max, x.box.y_max] for x in lesions])
    mean = np.average(edges, axis=0, weights=shares)
    votes: Counter[tuple[str | None, str | None]] = Counter()
    for lesion, share in zip(lesions, shares, strict=True):
        votes[lesion.diagnosis, lesion.severity] += share
    best = max(votes, key=lambda label: (votes[label], str(label)))
    soft = soft_label([lesion.diagnosis for lesion in lesions], shares.tolist())
    return replace(
        lesions[0],
        box=PixelBox(*(float(edge) for edge in mean)),
        diagnosis=best[0],
        severity=best[1],
        shape=None,
        origin=Origin.MANUAL,
        probabilities=tuple(soft.items()) if len(soft) > 1 else (),
    )


def with_soft_labels(truth: Annotation, readings: Sequence[Annotation], iou: float) -> Annotation:
    """A decided truth whose lesions carry, where readers differed, the share of readers behind each diagnosis.

    The decision itself counts as one voice; lesions on which everybody agrees carry nothing.
    """
    groups = _groups(truth, readings, iou)
    soft = [soft_label([lesion.diagnosis for lesion in group], [1.0] * len(group)) for group in groups]
    lesions = tuple(
        replace(lesion, probabilities=tuple(shares.items())) if len(shares) > 1 else lesion
        for lesion, shares in zip(truth.lesions, soft, strict=True)
    )
    return replace(truth, lesions=lesions)


def soft_label(diagnoses: Sequence[str | None], weights: Sequence[float]) -> dict[str, float]:
    """The share of weight behind each diagnosis, by code; open diagnoses are left out."""
    votes: Counter[str] = Counter()
    for diagnosis, weight in zip(diagnoses, weights, strict=True):
        if diagnosis is not None:
            votes[diagnosis] += weight  # type: ignore[assignment]
    total = sum(votes.values())
    return {code: votes[code] / total for code in sorted(votes)} if total else {}


def dawid_skene(said: Sequence[Mapping[str, int]], readers: Sequence[str], labels: int) -> Reliability:
    """The posterior of each unit's true label and each reader's confusion matrix, by expectation maximisation.

    `said` maps, for each unit, a reader to the index of the label they chose; not everybody reads everything.
    """
    answers = np.zeros((len(said), len(readers), labels))
    place = {reader: index for index, reader in enumerate(readers)}
    for unit, row in enumerate(said):
        for reader, label in row.items():
            answers[unit, place[reader], label] += 1
    posterior = answers.sum(axis=1)
    posterior /= np.maximum(posterior.sum(axis=1, keepdims=True), _FLOOR)
    for _ in range(_ROUNDS):
        confusion = np.einsum("ut,url->rtl", posterior, answers)
        confusion /= np.maximum(confusion.sum(axis=2, keepdims=True), _FLOOR)
        prevalence = posterior.mean(axis=0)
        log = np.log(np.maximum(prevalence, _FLOOR)) + np.einsum(
            "url,rtl->ut", answers, np.log(np.maximum(confusion, _FLOOR))
        )
        following = np.exp(log - log.max(axis=1, keepdims=True))
        following /= following.sum(axis=1, keepdims=True)
        moved, posterior = float(np.abs(following - posterior).max(initial=0.0)), following
        if moved < _CLOSE:
            break
    return Reliability(posterior, confusion, prevalence)


def staple(masks: Sequence[NDArray[np.bool_]]) -> Staple:
    """The probable foreground behind several readers' masks of one image (height × width), with a global prior."""
    said = np.stack([mask.ravel() for mask in masks])
    prior = float(said.mean())
    sensitivity = specificity = np.full(len(masks), 0.99999)
    probability = np.zeros(said.shape[1])
    for _ in range(_ROUNDS):
        inside = prior * np.prod(np.where(said, sensitivity[:, None], 1 - sensitivity[:, None]), axis=0)
        outside = (1 - prior) * np.prod(np.where(said, 1 - specificity[:, None], specificity[:, None]), axis=0)
        following = inside / np.maximum(inside + outside, _FLOOR)
        sensitivity = (said * following).sum(axis=1) / max(following.sum(), _FLOOR)
        specificity = (~said * (1 - following)).sum(axis=1) / max((1 - following).sum(), _FLOOR)
        moved, probability = float(np.abs(following - probability).max(initial=0.0)), following
        if moved < _CLOSE:
            break
    return Staple(probability.reshape(masks[0].shape), sensitivity, specificity)


def _groups(first: Annotation, others: Sequence[Annotation], iou: float) -> list[list[Lesion]]:
    groups = [[lesion] for lesion in first.lesions]
    for other in others:
        for mine, theirs in match(first.lesions, other.lesions, iou):
            groups[mine].append(other.lesions[theirs])
    return groups
