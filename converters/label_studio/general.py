"""Result lists of any labelling config: every region type, choices, texts, ratings, numbers, relations, both ways.

Answers that are no single choice keep their type in their name: `rating:certainty`, `text:remark`, `choices:signs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from converters.annotation import Finding, Lesion, Relation, Shape
from converters.errors import AnnotationError
from converters.geometry import ImageSize, KeyPoint, PixelBox
from converters.label_studio import controls
from converters.label_studio.plain import plain_boxes
from converters.label_studio.region_facts import is_region_fact, region_facts, row_facts
from converters.label_studio.regions import SHAPES, decode_shape, encode_shape, envelope_of
from converters.label_studio.results import (
    FINDINGS,
    OPEN_SEVERITIES,
    box_label,
    encode_choice,
    encode_text,
    read_origin,
)
from converters.taxonomy import Taxonomy

_ANSWERS = {"choices": "choices", "textarea": "text", "rating": "rating", "number": "number", "taxonomy": "taxonomy"}
_BESIDE = "beside"
_TEXT_CONTROLS = frozenset({controls.REASON, controls.READING})
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a result list says: lesions, finding, image-level answers, links, regions to burn out, and the image's size.

    `size` is None where no region states it.
    """

    lesions: tuple[Lesion, ...]
    finding: Finding
    answers: tuple[tuple[str, str], ...] = ()
    relations: tuple[Relation, ...] = ()
    redactions: tuple[Shape, ...] = ()
    size: ImageSize | None = None


def stated_size(result: Sequence[Row], item: str) -> ImageSize | None:
    """Width and height that the regions give for the image; raises AnnotationError where they disagree."""
    found: ImageSize | None = None
    for row in result:
        width = row.get("original_width")
        if width is None:
            continue
        height = row.get("original_height")
        if found is None and isinstance(width, int) and isinstance(height, int):
            found = ImageSize(width, height)
        if found is None or width != found.width or height != found.height:
            raise AnnotationError(
                f"{item}, region {row.get('id')}", (width, height), f"one size ({found})", "Draw it again."
            )
    return found


def decode(result: Sequence[Row], size: ImageSize | None, taxonomy: Taxonomy, item: str, empty: Finding) -> Reading:
    """What any result list says of an image; `empty` is the finding of a list without lesions and without a stated one.

    Raises AnnotationError, GeometryError or TaxonomyError naming `item` and the region.
    """
    if not isinstance(result, list) or not all(isinstance(row, dict) for row in result):
        raise AnnotationError(item, str(result)[:80], "a list of result rows", "Export the project again.")
    if size is None and (plain := plain_boxes(result, taxonomy)) is not None:
        lesions, size = plain
        return Reading(lesions, Finding.LESIONS, size=size)
    size = size or stated_size(result, item)
    shapes, others, relations = _sorted_rows(result, item)
    lesions, redactions = _regions(shapes, others, size, taxonomy, item)
    answers = dict(_answer(row, item) for rows in others.values() for row in rows)
    finding = _finding(answers, bool(lesions), empty, item)
    return Reading(lesions, finding, tuple(sorted(answers.items())), relations, redactions, size)


def _sorted_rows(result: Sequence[Row], item: str) -> tuple[list[Row], dict[Any, list[Row]], tuple[Relation, ...]]:
    shapes: list[Row] = []
    others: dict[Any, list[Row]] = {}
    relations: list[Relation] = []
    for row in result:
        kind = row.get("type")
        if not isinstance(kind, str):
            raise AnnotationError(f"{item}, region {row.get('id')}", kind, "a region type", "Export it again.")
        if kind.removesuffix("labels") in SHAPES:
            shapes.append(row)
        elif kind == "relation":
            relations.append(_relation(row))
        elif kind == "labels" or kind in _ANSWERS:
            others.setdefault(row.get("id"), []).append(row)
        else:
            known = f"one of {', '.join(sorted(SHAPES))} or {', '.join(_ANSWERS)}"
            cure = "Draw it with one of these, or delete it."
            raise AnnotationError(f"{item}, region {row.get('id')}", kind, known, cure)
    return shapes, others, tuple(relations)


def _regions(
    shapes: Sequence[Row], others: dict[Any, list[Row]], size: ImageSize | None, taxonomy: Taxonomy, item: str
) -> tuple[tuple[Lesion, ...], tuple[Shape, ...]]:
    lesions: dict[Any, Lesion] = {}
    redactions: list[Shape] = []
    points: list[tuple[Any, KeyPoint]] = []
    names = [_label(row, others, f"{item}, region {row.get('id')}") for row in shapes]
    parents = _parents(shapes, names)
    for number, (row, name) in enumerate(zip(shapes, names, strict=True)):
        region = f"{item}, region {row.get('id')}"
        if size is None:
            raise AnnotationError(region, None, "original_width and original_height", "Export the project again.")
        shape = decode_shape(str(row["type"]).removesuffix("labels"), _value(row, region), size, region)
        if isinstance(shape, tuple):
            point = KeyPoint(*shape, name or "")
            if row.get("parentID") in parents:
                points.append((row["parentID"], point))
                _keep_beside(row, others, parent=False)
                continue
            lesion = _pointed(point, row, taxonomy)
        elif _is_redaction(name):
            redactions.append(shape)
            _keep_beside(row, others, parent=True)
            continue
        else:
            lesion = _lesion(row, shape, name, taxonomy, region)
        key = row.get("id") or number
        if key in lesions:
            raise AnnotationError(region, key, "an id of its own for each region", "Export the project again.")
        lesions[key] = _with_attributes(lesion, others.pop(row.get("id"), ()), region_facts(row), region)
    for parent, point in points:
        lesions[parent] = replace(lesions[parent], keypoints=(*lesions[parent].keypoints, point))
    return tuple(lesions.values()), tuple(redactions)


def _parents(shapes: Sequence[Row], names: Sequence[str | None]) -> set[Any]:
    """Ids of the regions that become lesions with an outline, so that points may belong to them."""
    drawn = [(row, name) for row, name in zip(shapes, names, strict=True) if row.get("id")]
    return {row["id"] for row, name in drawn if not str(row["type"]).startswith("keypoint") and not _is_redaction(name)}


def _is_redaction(name: str | None) -> bool:
    return name is not None and name.casefold() == controls.REDACT


def _keep_beside(row: Row, others: dict[Any, list[Row]], parent: bool) -> None:
    """Keeps what is said of a region that becomes no lesion as texts of the image that name the region."""
    kept = [other for other in others.pop(row.get("id"), ()) if other["type"] != "labels"]
    for fact, said in region_facts(row, parent):
        text = encode_text(f"{fact.partition(':')[2]} of {row.get('id')}", said)
        kept.append(text)
    if kept:
        others[_BESIDE, row.get("id")] = kept


def _lesion(row: Row, shape: Shape, name: str | None, taxonomy: Taxonomy, region: str) -> Lesion:
    diagnosis = None if name is None or name in OPEN_SEVERITIES else taxonomy.resolve(name, region)
    severity = diagnosis.severity.value if diagnosis else OPEN_SEVERITIES.get(name or "")
    return Lesion(
        box=shape if isinstance(shape, PixelBox) else envelope_of(shape),
        diagnosis=diagnosis.code if diagnosis else None,
        severity=severity,
        score=_score(row, region),
        shape=None if isinstance(shape, PixelBox) else shape,
        region_id=None if row.get("id") is None else str(row["id"]),
        origin=read_origin(row, region),
    )


def _pointed(point: KeyPoint, row: Row, taxonomy: Taxonomy) -> Lesion:
    box = PixelBox(point.x, point.y, point.x, point.y)
    found = taxonomy.find(point.name)
    return Lesion(
        box,
        found.code if found else None,
        found.severity.value if found else None,
        keypoints=(point,),
        region_id=str(row.get("id")),
        origin=read_origin(row, str(row.get("id"))),
    )


def _label(row: Row, others: Mapping[Any, list[Row]], region: str) -> str | None:
    kind = str(row["type"])
    value = _value(row, region)
    labels = list(value.get(kind) or value.get("labels") or ()) if kind.endswith("labels") else []
    for other in others.get(row.get("id"), ()):
        if other["type"] == "labels":
            labels += _value(other, region).get("labels") or ()
    if len(labels) > 1 or not all(isinstance(label, str) for label in labels):
        raise AnnotationError(region, labels, "one diagnosis for a region", "Remove the others.")
    return labels[0] if labels else None


def _with_attributes(lesion: Lesion, rows: Sequence[Row], facts: Sequence[tuple[str, str]], region: str) -> Lesion:
    said = [row for row in rows if row["type"] != "labels" and row.get("from_name") != controls.READING]
    attributes = tuple(sorted([*facts, *(_answer(row, region) for row in said)]))
    return replace(lesion, attributes=attributes) if attributes else lesion


def _answer(row: Row, item: str) -> tuple[str, str]:
    kind, name, value = str(row["type"]), str(row.get("from_name")), _value(row, item)
    if kind == "labels":
        raise AnnotationError(item, value, "labels on a region", "Delete the label that has no region.")
    if kind not in value and _ANSWERS[kind] not in value:
        raise AnnotationError(f"{item}, {name}", value, f"{_ANSWERS[kind]} in the value", "Answer again.")
    said = value.get(kind, value.get(_ANSWERS[kind]))
    plain = isinstance(said, list) and len(said) == 1 and isinstance(said[0], str)
    if plain and kind == "choices":
        return name, said[0]
    if plain and kind == "textarea":
        return (name if name in _TEXT_CONTROLS else f"text:{name}"), said[0]
    return f"{kind}:{name}", orjson.dumps(said).decode()


def _relation(row: Row) -> Relation:
    labels = tuple(str(label) for label in row.get("labels") or ())
    return Relation(str(row.get("from_id")), str(row.get("to_id")), str(row.get("direction", "right")), labels)


def _value(row: Row, item: str) -> Mapping[str, Any]:
    value = row.get("value")
    if not isinstance(value, dict):
        raise AnnotationError(item, str(value)[:80], "a value object", "Export the project again.")
    return value


def _score(row: Row, region: str) -> float | None:
    score = row.get("score")
    if score is None or (isinstance(score, int | float) and 0 <= score <= 1):
        return score
    raise AnnotationError(f"{region}, score", score, "a number from 0 to 1", "Correct the prediction.")


def _finding(answers: dict[str, str], lesions: bool, empty: Finding, item: str) -> Finding:
    said = answers.pop(controls.FINDING, None)
    if said is None:
        return Finding.LESIONS if lesions else empty
    if said not in FINDINGS:
        raise AnnotationError(f"{item}, finding", said, f"one of {', '.join(FINDINGS)}", "Choose again.")
    finding = FINDINGS[said]
    if (finding is Finding.LESIONS) != lesions and finding is not Finding.UNGRADABLE:
        expected = "regions exactly when lesions are marked"
        raise AnnotationError(f"{item}, finding", said, expected, "Draw the regions or change the answer.")
    return finding


def encode(reading: Reading, size: ImageSize, taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """Label Studio's result rows for a reading, for a config whose region controls are named `<type>labels`."""
    return list(_rows(reading, size, taxonomy))


def _rows(reading: Reading, size: ImageSize, taxonomy: Taxonomy) -> Iterator[dict[str, Any]]:
    frame = {"to_name": controls.IMAGE, "original_width": size.width, "original_height": size.height}
    frame["image_rotation"] = 0
    for number, lesion in enumerate(reading.lesions):
        region_id = lesion.region_id or f"lesion-{number}"
        pointed = lesion.shape is None and lesion.box.area == 0 and len(lesion.keypoints) == 1
        if not pointed:
            yield _region_row(lesion, region_id, size, box_label(lesion, taxonomy), frame)
        for index, point in enumerate(lesion.keypoints):
            point_id = region_id if pointed else f"{region_id}-point-{index}"
            row = _point_row(point, point_id, None if pointed else region_id, size, frame)
            yield {**row, **row_facts(lesion.attributes)} if pointed else row
        own = ((name, said) for name, said in lesion.attributes if not is_region_fact(name))
        yield from (_answer_row(name, said, region_id) for name, said in own)
    for index, shape in enumerate(reading.redactions):
        yield _shape_row(shape, f"redaction-{index}", size, controls.REDACT, frame)
    if reading.finding in (Finding.LESION_FREE, Finding.UNGRADABLE):
        yield {"id": "finding", **encode_choice(controls.FINDING, controls.FINDING_LABELS[reading.finding.value])}
    yield from (_answer_row(name, said, f"answer-{name}") for name, said in reading.answers)
    for link in reading.relations:
        row = {"type": "relation", "from_id": link.from_region, "to_id": link.to_region, "direction": link.direction}
        yield {**row, "labels": list(link.labels)} if link.labels else row


def _region_row(
    lesion: Lesion, region_id: str, size: ImageSize, label: str, frame: Mapping[str, Any]
) -> dict[str, Any]:
    shape = lesion.box if lesion.shape is None else lesion.shape
    row = {**_shape_row(shape, region_id, size, label, frame), "origin": lesion.origin.value}
    row |= row_facts(lesion.attributes)
    return row if lesion.score is None else {**row, "score": lesion.score}


def _shape_row(shape: Shape, region_id: str, size: ImageSize, label: str, frame: Mapping[str, Any]) -> dict[str, Any]:
    kind, value = encode_shape(shape, size)
    name = controls.DIAGNOSIS if kind == "rectangle" else f"{controls.DIAGNOSIS}-{kind}"
    labelled = {**value, f"{kind}labels": [label]}
    return {"id": region_id, "from_name": name, "type": f"{kind}labels", **frame, "value": labelled}


def _point_row(
    point: KeyPoint, point_id: str, parent: str | None, size: ImageSize, frame: Mapping[str, Any]
) -> dict[str, Any]:
    x, y = 100 * point.x / size.width, 100 * point.y / size.height
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [point.name] if point.name else []}
    name = f"{controls.DIAGNOSIS}-keypoint"
    row = {"id": point_id, "from_name": name, "type": "keypointlabels", **frame, "value": value}
    return row if parent is None else {**row, "parentID": parent}


def _answer_row(name: str, said: str, row_id: str) -> dict[str, Any]:
    kind, _, control = name.rpartition(":")
    if kind in ("text", "") and (kind == "text" or name in _TEXT_CONTROLS):
        return {"id": row_id, **encode_text(control, said)}
    if kind == "":
        return {"id": row_id, **encode_choice(name, said)}
    key = kind if kind in ("choices", "rating", "number", "taxonomy") else _ANSWERS.get(kind, kind)
    value = {key: orjson.loads(said)}
    return {"id": row_id, "from_name": control, "to_name": controls.IMAGE, "type": kind, "value": value}
