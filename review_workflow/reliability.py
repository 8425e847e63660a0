"""How reliable each reader is, estimated from the lesions that several of them have named (Dawid and Skene 1979)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from converters.label_studio.controls import OPEN_LABELS, Tier
from converters.taxonomy import Taxonomy
from review_workflow import consensus
from review_workflow.consensus import Label, Reliability
from review_workflow.review import Review

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class ReaderReliability:
    """An estimate of so many lesions: readers and labels by index of the confusion (readers × true × said)."""

    lesions: int
    readers: tuple[str, ...]
    labels: tuple[Label, ...]
    estimate: Reliability

    @property
    def digest(self) -> str:
        """SHA-256 over the whole estimate, in hexadecimal: what a decision names."""
        return hashlib.sha256(self.encode().encode()).hexdigest()

    def shares(self, said: Mapping[str, Label]) -> dict[Label, float]:
        """The probability of each label that is not all but impossible, where readers called a lesion so.

        Whoever the estimate does not know counts as the readers on average.
        """
        place = {label: index for index, label in enumerate(self.labels)}
        known = {reader: index for index, reader in enumerate(self.readers)}
        voices = [(known.get(reader, len(known)), place[label]) for reader, label in said.items()]
        found = consensus.posterior(self._with_a_newcomer(), voices)
        return {label: float(share) for label, share in zip(self.labels, found, strict=True) if share > 1e-4}

    def correct(self, reader: str) -> float:
        """How often a reader says what is true, in [0, 1], over the labels as they occur."""
        matrix = self.estimate.confusion[self.readers.index(reader)]
        return float((np.diag(matrix) * self.estimate.prevalence).sum())

    def encode(self) -> str:
        """Canonical JSON, rounded, that `decode` reads back."""
        row = {
            "lesions": self.lesions,
            "readers": self.readers,
            "labels": self.labels,
            "confusion": np.round(self.estimate.confusion, _DIGITS).tolist(),
            "prevalence": np.round(self.estimate.prevalence, _DIGITS).tolist(),
        }
        return orjson.dumps(row, option=orjson.OPT_SORT_KEYS).decode()

    def _with_a_newcomer(self) -> Reliability:
        average = self.estimate.confusion.mean(axis=0, keepdims=True)
        confusion = np.concatenate([self.estimate.confusion, average])
        return Reliability(self.estimate.posterior, confusion, self.estimate.prevalence)


def decode(text: str) -> ReaderReliability:
    """The estimate of its JSON."""
    row = orjson.loads(text)
    labels = tuple((diagnosis, severity) for diagnosis, severity in row["labels"])
    confusion, prevalence = (np.array(row[name], dtype=float) for name in ("confusion", "prevalence"))
    estimate = Reliability(np.zeros((0, len(labels))), confusion, prevalence)
    return ReaderReliability(int(row["lesions"]), tuple(row["readers"]), labels, estimate)


def estimate(reviews: Iterable[Review], taxonomy: Taxonomy, iou: float) -> ReaderReliability | None:
    """The reliability of all dermatologists from the lesions that two or more have named; None where there is none.

    The same reviews give the same estimate to the last digit, in whatever order they come.
    """
    labels = _labels(taxonomy)
    place = {label: index for index, label in enumerate(labels)}
    ordered = sorted(reviews, key=lambda review: review.image_id)
    said = [row for review in ordered for row in _named_by_several(review, place, iou)]
    if not said:
        return None
    readers = sorted({reader for row in said for reader in row})
    found = consensus.dawid_skene([row.items() for row in said], readers, len(labels))
    rounded = Reliability(_nothing(labels), *(np.round(x, _DIGITS) for x in (found.confusion, found.prevalence)))
    return ReaderReliability(len(said), tuple(readers), labels, rounded)


def _labels(taxonomy: Taxonomy) -> tuple[Label, ...]:
    known = [(diagnosis.code, diagnosis.severity.value) for diagnosis in taxonomy.diagnoses]
    return (*known, *((None, severity) for severity in OPEN_LABELS))


def _named_by_several(review: Review, place: Mapping[Label, int], iou: float) -> list[dict[str, int]]:
    readings = [answer.annotation for answer in review.readings(Tier.DERMATOLOGIST)]
    if len(readings) < 2:
        return []
    groups = consensus.grouped(readings, iou)
    rows = [{readings[i].author: place[consensus.label(lesion)] for i, lesion in group.items()} for group in groups]
    return [row for row in rows if len(row) > 1]


def _nothing(labels: tuple[Label, ...]) -> NDArray[np.float64]:
    return np.zeros((0, len(labels)))
