"""From an annotation as Label Studio holds it to a command, or to the reason why it is none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import orjson

from converters.annotation import Annotation, ImageRecord, TruthLevel
from converters.errors import ConversionError
from converters.label_studio import controls, results
from converters.label_studio.controls import Verdict
from converters.taxonomy import Taxonomy
from review_workflow.label_studio import ModelSuggestion, SubmittedAnnotation
from review_workflow.people import Person
from review_workflow.review import TIER_LEVELS, Submit, WorkKey

_VERDICTS = {verdict.value: verdict for verdict in Verdict}


def source(annotation: SubmittedAnnotation) -> str:
    """What identifies this version of an annotation: its id and a digest of what it says and who says it."""
    actor = str(annotation.actor).encode()
    digest = hashlib.sha256(annotation.result + actor + bytes([annotation.cancelled])).hexdigest()
    return f"{annotation.annotation_id}@{digest[:16]}"


def command(
    key: WorkKey,
    annotation: SubmittedAnnotation,
    record: ImageRecord,
    people: Mapping[int, Person],
    taxonomy: Taxonomy,
) -> Submit:
    """The submission that an annotation is; raises ConversionError where its regions cannot be read."""
    person = people.get(annotation.actor or 0)
    item = f"annotation {annotation.annotation_id}"
    answer = results.decode(orjson.loads(annotation.result), record.size, taxonomy, item)
    said = answer.get(controls.VERDICT)
    author = person.email if person else f"user {annotation.actor}"
    read = Annotation(
        image_id=record.image_id,
        finding=answer.finding,
        lesions=answer.lesions,
        level=TIER_LEVELS[key.tier],
        author=author,
        annotation_id=str(annotation.annotation_id),
        created_at=annotation.updated_at or annotation.created_at,
        model_version=annotation.started_from,
        lead_time=annotation.lead_time,
        answers=answer.answers,
        redactions=answer.redactions,
    )
    return Submit(
        key=key,
        person=person,
        annotation=read,
        verdict=_VERDICTS.get(said) if said else None,
        reason=answer.get(controls.REASON) or "",
        source=source(annotation),
        site=record.site,
    )


def model_reading(suggestion: ModelSuggestion, record: ImageRecord, taxonomy: Taxonomy) -> Annotation:
    """What a model says of an image; raises ConversionError where its regions cannot be read."""
    item = f"prediction on task {suggestion.task_id}"
    answer = results.decode(orjson.loads(suggestion.result), record.size, taxonomy, item)
    return Annotation(
        image_id=record.image_id,
        finding=answer.finding,
        lesions=answer.lesions,
        level=TruthLevel.MODEL,
        author=suggestion.model_version,
        model_version=suggestion.model_version,
    )


def complaint(error: ConversionError) -> str:
    """What its author is told of an annotation that cannot be read."""
    return f"This answer cannot be read: {error.item}: {error.value!r}; expected {error.expected}. {error.cure}"
