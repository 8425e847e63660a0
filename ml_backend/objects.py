"""Upload → result: a picture in a bucket is read once per model version, its result stored beside it.

The result is written first and the picture's metadata last, so that a run that dies in between is simply done again;
a picture whose metadata names the serving version is done. Writing metadata copies the object onto itself, which S3
reports as another creation: the mark ends that circle.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from ml_backend import answers
from ml_backend.errors import StoreError, UnreadableImageError
from ml_backend.s3 import ObjectStore, StoredObject
from ml_backend.service import Analysis, Outcome, Picture, PredictionService

RESULT_SUFFIX = ".dermloop.json"
_SUFFIXES = (".jpg", ".jpeg", ".png")
_VERSION = "dermloop-model-version"
_RESULT_BYTES = 10_000_000


class ObjectState(StrEnum):
    """What was done with an object."""

    ANALYSED = "analysed"
    CURRENT = "current"
    UNREADABLE = "unreadable"
    NO_PICTURE = "no picture"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class ObjectOutcome:
    """One object and what was done with it."""

    bucket: str
    key: str
    state: ObjectState


Count = Callable[[Analysis], None]
"""Is told each analysis."""


def is_picture(key: str) -> bool:
    """Whether a key names a picture that is to be read."""
    return key.lower().endswith(_SUFFIXES)


def analyse_object(
    store: ObjectStore,
    service: PredictionService,
    bucket: str,
    key: str,
    max_bytes: int,
    count: Count = lambda analysis: None,
) -> ObjectOutcome:
    """What was done with an object; doing it again changes nothing.

    A picture that cannot be read has its reason stored as the result. Raises StoreError or NoModelError where another
    try may succeed.
    """
    if not is_picture(key):
        return ObjectOutcome(bucket, key, ObjectState.NO_PICTURE)
    if (found := store.head(bucket, key)) is None:
        return ObjectOutcome(bucket, key, ObjectState.GONE)
    version = service.host.current().bundle.version
    if found.metadata.get(_VERSION) == version:
        return ObjectOutcome(bucket, key, ObjectState.CURRENT)
    load = functools.partial(_content, store, found, max_bytes)
    analysis = service.analyse([Picture(f"s3://{bucket}/{key}", load)])
    count(analysis)
    (outcome,) = analysis.outcomes
    if outcome.error is not None and not isinstance(outcome.error, UnreadableImageError):
        raise StoreError(outcome.item, str(outcome.error), "a readable object", "It is tried again.") from outcome.error
    result = answers.analysed(outcome, analysis.bundle)
    stored = {"key": key, "etag": found.etag, "model_version": analysis.bundle.version, **result}
    store.put_json(bucket, key + RESULT_SUFFIX, {**stored, "disclaimer": answers.DISCLAIMER})
    store.mark(found, {_VERSION: analysis.bundle.version, **_summary(outcome, result)})
    state = ObjectState.UNREADABLE if outcome.error is not None else ObjectState.ANALYSED
    return ObjectOutcome(bucket, key, state)


def stored_result(store: ObjectStore, bucket: str, key: str) -> dict[str, Any] | None:
    """The result stored beside a picture, or None where it has not been analysed; raises StoreError."""
    if store.head(bucket, key + RESULT_SUFFIX) is None:
        return None
    content = store.read(bucket, key + RESULT_SUFFIX, _RESULT_BYTES)
    found: dict[str, Any] = orjson.loads(content)
    return found


class Poller:
    """Does without events what they would do: looks through a bucket and reads what has no current result."""

    def __init__(
        self,
        store: ObjectStore,
        service: PredictionService,
        bucket: str,
        prefix: str,
        max_bytes: int,
        count: Count = lambda analysis: None,
    ) -> None:
        self._store = store
        self._service = service
        self._bucket = bucket
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._count = count
        self._known: dict[str, tuple[str, str]] = {}

    def once(self, told: Callable[[str, StoreError], None]) -> Iterator[ObjectOutcome]:
        """Outcomes of the pictures that were new or out of date; failures are told and tried again next time."""
        version = self._service.host.current().bundle.version
        for key, etag in self._store.keys(self._bucket, self._prefix):
            if not is_picture(key) or self._known.get(key) == (etag, version):
                continue
            try:
                outcome = analyse_object(self._store, self._service, self._bucket, key, self._max_bytes, self._count)
            except StoreError as error:
                told(key, error)
                continue
            if outcome.state is ObjectState.CURRENT:
                self._known[key] = (etag, version)
            else:
                yield outcome


def _content(store: ObjectStore, found: StoredObject, max_bytes: int) -> bytes:
    if found.size > max_bytes:
        item = f"s3://{found.bucket}/{found.key}"
        raise UnreadableImageError(item, f"{found.size} bytes", f"at most {max_bytes}", "Scale it down.")
    return store.read(found.bucket, found.key, max_bytes)


def _summary(outcome: Outcome, result: dict[str, Any]) -> dict[str, str]:
    if outcome.prediction is None:
        return {"dermloop-error": "unreadable"}
    severities = [lesion.severity for lesion in outcome.prediction.lesions if lesion.severity]
    worst = max(severities, key=("low", "moderate", "high").index, default="none")
    return {
        "dermloop-recommendation": str(result["recommendation"]),
        "dermloop-severity": worst,
        "dermloop-lesions": str(len(outcome.prediction.lesions)),
    }
