"""Reviews and events as canonical JSON text, and back."""

from __future__ import annotations

from typing import Any

import orjson

from converters import manifest
from converters.annotation import Annotation
from converters.label_studio.controls import Tier, Verdict
from review_workflow.review import Answer, Review, Work, WorkKey, WorkStatus
from review_workflow.states import ReviewState


def encode_review(review: Review) -> str:
    """Canonical JSON of a review that `decode_review` reads back equal (version and state are kept in columns)."""
    row = {
        "works": [_work_row(work) for work in review.works],
        "answers": [_answer_row(answer) for answer in review.answers],
        "truth": _annotation_row(review.truth),
        "known": _annotation_row(review.known),
    }
    return _text(row)


def decode_review(image_id: str, state: str, revision: int, version: int, body: str) -> Review:
    """The review of a stored row."""
    row = orjson.loads(body)
    return Review(
        image_id=image_id,
        state=ReviewState(state),
        revision=revision,
        version=version,
        works=tuple(_work(item) for item in row["works"]),
        answers=tuple(_answer(item) for item in row["answers"]),
        truth=_annotation(row["truth"]),
        known=_annotation(row.get("known")),
    )


def decode_truths_diagnoses(body: str) -> set[str]:
    """The diagnoses that a stored review's truth names, without the rest of it."""
    truth = orjson.loads(body)["truth"]
    return {diagnosis for lesion in (truth or {}).get("lesions", ()) if (diagnosis := lesion.get("diagnosis"))}


def encode_annotation(annotation: Annotation | None) -> str:
    """Canonical JSON of an annotation, empty text for none: the region-level before and after of an audit entry."""
    return "" if annotation is None else _text(manifest.encode_annotation(annotation))


def decode_annotation(text: str) -> Annotation:
    """The annotation of its canonical JSON."""
    return manifest.decode_annotation(orjson.loads(text))


def encode_strings(values: tuple[str, ...]) -> str:
    """JSON list of strings."""
    return _text(list(values))


def decode_strings(text: str) -> tuple[str, ...]:
    """The strings of a JSON list."""
    return tuple(str(value) for value in orjson.loads(text))


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _work_row(work: Work) -> list[Any]:
    key = work.key
    return [key.image_id, int(key.tier), key.round, key.slot, work.assignee, work.status.value, work.reason, work.told]


def _work(row: list[Any]) -> Work:
    return Work(WorkKey(row[0], Tier(row[1]), row[2], row[3]), row[4], WorkStatus(row[5]), row[6], row[7])


def _answer_row(answer: Answer) -> dict[str, Any]:
    return {
        "key": str(answer.key),
        "annotation": manifest.encode_annotation(answer.annotation),
        "verdict": answer.verdict.value if answer.verdict else None,
        "reason": answer.reason,
        "changed": answer.changed,
        "source": answer.source,
        "blind": answer.blind,
    }


def _answer(row: dict[str, Any]) -> Answer:
    return Answer(
        key=WorkKey.parse(row["key"]),
        annotation=manifest.decode_annotation(row["annotation"]),
        verdict=Verdict(row["verdict"]) if row["verdict"] else None,
        reason=row["reason"],
        changed=row["changed"],
        source=row["source"],
        blind=row.get("blind", False),
    )


def _annotation_row(annotation: Annotation | None) -> dict[str, Any] | None:
    return None if annotation is None else manifest.encode_annotation(annotation)


def _annotation(row: dict[str, Any] | None) -> Annotation | None:
    return None if row is None else manifest.decode_annotation(row)
