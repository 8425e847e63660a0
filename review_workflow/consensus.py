"""One reading out of several: boxes fused, diagnoses by vote or by reliability, masks by STAPLE.

Sources: weighted box fusion, Solovyev et al. 2021 (doi:10.1016/j.imavis.2021.104117); reader reliability, Dawid and
Skene 1979 (doi:10.2307/2346806); STAPLE, Warfield et al. 2004 (doi:10.1109/TMI.2004.828354).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from converters.annotation import Annotation, Lesion, Origin
from converters.geometry import PixelBox, RleMask
from review_workflow.measures import match

Label: TypeAlias = tuple[str | None, str | None]
"""What a lesion is called: a diagnosis code and a severity, each None where it is open."""

_ROUNDS = 200
_CLOSE = 1e-7
_FLOOR = 1e-12
_SPREAD = 0.02
_SEEN = 0.005


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


def fuse(lesions: Sequence[Lesion], shares: Mapping[Label, float], by_staple: bool = True) -> Lesion:
    """One lesion for several readings of it: the mean box, the label most is behind, the merged mask, the soft label.

    `shares` says how much is behind each label, by whatever vote; only what stands out stays in the soft label.
    """
    edges = np.array([[x.box.x_min, x.box.y_min, x.box.x_max, x.box.y_max] for x in lesions])
    best = max(shares, key=lambda label: (shares[label], str(label)))
    masks = [lesion.shape for lesion in lesions if isinstance(lesion.shape, RleMask)]
    mask = merge_masks(masks, by_staple) if len(masks) == len(lesions) else None
    soft = {
        diagnosis: share for (diagnosis, _), share in sorted(shares.items(), key=str) if diagnosis and share > _SEEN
    }
    return replace(
        lesions[0],
        box=(mask.envelope() if mask else None) or PixelBox(*(float(edge) for edge in edges.mean(axis=0))),
        diagnosis=best[0],
        severity=best[1],
        shape=mask,
        origin=Origin.MANUAL,
        probabilities=_normal(soft) if len(soft) > 1 else (),
    )


def label(lesion: Lesion) -> Label:
    """What a lesion is called: its diagnosis and its severity."""
    return lesion.diagnosis, lesion.severity


def majority(labels: Sequence[Label]) -> dict[Label, float]:
    """The share of voices behind each label."""
    return {name: count / len(labels) for name, count in Counter(labels).items()}


def with_soft_labels(truth: Annotation, readings: Sequence[Annotation], iou: float) -> Annotation:
    """A decided truth whose lesions carry, where readers differed, the share of readers behind each diagnosis.

    The decision itself counts as one voice; lesions on which everybody agrees carry nothing.
    """
    groups = grouped([truth, *readings], iou)
    soft = [soft_label([lesion.diagnosis for lesion in group.values()]) for group in groups]
    lesions = tuple(
        replace(lesion, probabilities=tuple(shares.items())) if len(shares) > 1 else lesion
        for lesion, shares in zip(truth.lesions, soft, strict=True)
    )
    return replace(truth, lesions=lesions)


def soft_label(diagnoses: Sequence[str | None]) -> dict[str, float]:
    """The share of voices behind each diagnosis, by code; open diagnoses are left out."""
    votes = Counter(diagnosis for diagnosis in diagnoses if diagnosis is not None)
    return {code: votes[code] / votes.total() for code in sorted(votes)}


def dawid_skene(said: Sequence[Iterable[tuple[str, int]]], readers: Sequence[str], labels: int) -> Reliability:
    """The posterior of each unit's true label and each reader's confusion matrix, by expectation maximisation.

    `said` pairs, for each unit, readers with the index of the label they chose; not everybody reads everything, and who
    reads a unit twice is in two pairs.
    """
    answers = np.zeros((len(said), len(readers), labels))
    place = {reader: index for index, reader in enumerate(readers)}
    for unit, row in enumerate(said):
        for reader, label in row:
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


def posterior(estimate: Reliability, said: Iterable[tuple[int, int]]) -> NDArray[np.float64]:
    """The probability of each label, where pairs say which reader of the estimate said which label (by index).

    A little of every confusion is spread evenly, so that what a reader never did before stays possible.
    """
    labels = estimate.prevalence.size
    even = 1.0 / labels
    log = np.log((1 - _SPREAD) * estimate.prevalence + _SPREAD * even)
    for reader, label in said:
        log = log + np.log((1 - _SPREAD) * estimate.confusion[reader, :, label] + _SPREAD * even)
    weights = np.exp(log - log.max())
    return np.asarray(weights / weights.sum())


def staple(masks: Sequence[NDArray[np.bool_]]) -> Staple:
    """The probable foreground behind several readers' masks of one image (height × width), with a global prior.

    Pixels on which all readers said the same are alike, so the estimate runs over the patterns that occur.
    """
    pattern = sum(mask.astype(np.int64) << reader for reader, mask in enumerate(masks))
    patterns, place, counts = np.unique(pattern, return_inverse=True, return_counts=True)
    said = np.stack([(patterns >> reader) & 1 == 1 for reader in range(len(masks))])
    prior = float((said * counts).sum() / (counts.sum() * len(masks)))
    sensitivity = specificity = np.full(len(masks), 0.99999)
    probability = np.zeros(patterns.size)
    for _ in range(_ROUNDS):
        inside = prior * np.prod(np.where(said, sensitivity[:, None], 1 - sensitivity[:, None]), axis=0)
        outside = (1 - prior) * np.prod(np.where(said, 1 - specificity[:, None], specificity[:, None]), axis=0)
        following = inside / np.maximum(inside + outside, _FLOOR)
        weight, rest = counts * following, counts * (1 - following)
        sensitivity = (said * weight).sum(axis=1) / max(weight.sum(), _FLOOR)
        specificity = (~said * rest).sum(axis=1) / max(rest.sum(), _FLOOR)
        moved, probability = float(np.abs(following - probability).max(initial=0.0)), following
        if moved < _CLOSE:
            break
    return Staple(probability[place].reshape(masks[0].shape), sensitivity, specificity)


def merge_masks(masks: Sequence[RleMask], by_staple: bool = True) -> RleMask:
    """One mask for several readers' masks of one lesion: STAPLE around their union, or what more than half painted."""
    drawn = [mask.to_array() for mask in masks]
    if not by_staple:
        return RleMask.from_array(np.sum(drawn, axis=0) * 2 > len(drawn))
    rows, columns = (_around(np.any(drawn, axis=(0, other))) for other in (2, 1))
    merged = np.zeros_like(drawn[0])
    merged[rows, columns] = staple([mask[rows, columns] for mask in drawn]).probability >= 0.5
    return RleMask.from_array(merged)


def _around(used: NDArray[np.bool_]) -> slice:
    """The used stretch of an axis and a quarter of it on both sides, so that readers also agree on background."""
    places = np.flatnonzero(used)
    if places.size == 0:
        return slice(0, used.size)
    margin = (places[-1] - places[0] + 1) // 4 + 1
    return slice(max(int(places[0] - margin), 0), int(places[-1] + margin + 1))


def grouped(readings: Sequence[Annotation], iou: float) -> list[dict[int, Lesion]]:
    """Each lesion of the first reading with its partners, whatever they are called, by the index of their reading."""
    first, *others = readings
    groups = [{0: lesion} for lesion in first.lesions]
    for index, other in enumerate(others, start=1):
        for mine, theirs in match(first.lesions, other.lesions, iou):
            groups[mine][index] = other.lesions[theirs]
    return groups


def _normal(soft: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    total = sum(soft.values())
    return tuple((code, soft[code] / total) for code in sorted(soft))
