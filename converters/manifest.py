"""The house's own lossless form of images and annotations: one canonical JSON line for each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import orjson

from converters.annotation import (
    Annotation,
    Confirmation,
    Finding,
    ImageRecord,
    Lesion,
    Origin,
    Relation,
    Shape,
    TruthLevel,
)
from converters.errors import DatasetError
from converters.geometry import Ellipse, ImageSize, KeyPoint, PixelBox, Polygon, RleMask, RotatedBox

_SHAPES: dict[str, type[Shape]] = {
    "box": PixelBox,
    "rotated": RotatedBox,
    "ellipse": Ellipse,
    "polygon": Polygon,
    "mask": RleMask,
}


def encode_line(value: Mapping[str, Any]) -> bytes:
    """Canonical JSON of one row: sorted keys, UTF-8, a newline at the end; equal rows give equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def encode_record(record: ImageRecord) -> dict[str, Any]:
    """Plain form of an image record that `decode_record` reads back equal."""
    size = [record.size.width, record.size.height]
    return {"image_id": record.image_id, "uri": record.uri, "size": size, **encode_facts(record)}


def encode_facts(record: ImageRecord) -> dict[str, Any]:
    """Plain form of what a record knows beside the image's id, place and size."""
    row = {"original_name": record.original_name} if record.original_name else {}
    return row if _RARE_FACTS(record) == _NO_FACTS else {**row, **_without_defaults(record)}


def decode_record(row: Mapping[str, Any]) -> ImageRecord:
    """The image record of a plain row; raises DatasetError where a field is missing or malformed."""
    try:
        values = dict(row)
        values["size"] = ImageSize(*values["size"])
        values["confirmation"] = Confirmation(values.get("confirmation", Confirmation.UNKNOWN))
        values["extra"] = _pairs(values.get("extra", ()))
        return ImageRecord(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed("image record", row, error) from error


def encode_annotation(annotation: Annotation) -> dict[str, Any]:
    """Plain form of an annotation that `decode_annotation` reads back equal."""
    lesions = [encode_lesion(lesion) for lesion in annotation.lesions]
    return {"image_id": annotation.image_id, **encode_answer(annotation), "lesions": lesions}


def encode_answer(annotation: Annotation) -> dict[str, Any]:
    """Plain form of an annotation without its image and its lesions."""
    row: dict[str, Any] = {"finding": str(annotation.finding), "level": _LEVELS[annotation.level]}
    if annotation.author:
        row["author"] = annotation.author
    if annotation.annotation_id:
        row["annotation_id"] = annotation.annotation_id
    if annotation.lead_time is not None:
        row["lead_time"] = annotation.lead_time
    if _RARE_ANSWERS(annotation) != _NO_ANSWERS:
        row.update(_without_defaults(annotation))
    if annotation.created_at is not None:
        row["created_at"] = _moment(annotation.created_at)
    if annotation.redactions:
        row["redactions"] = [_encode_shape(shape) for shape in annotation.redactions]
    if annotation.relations:
        row["relations"] = [[r.from_region, r.to_region, r.direction, *r.labels] for r in annotation.relations]
    return row


def _moment(moment: datetime) -> str:
    """ISO 8601 as `isoformat` writes it; a moment in UTC in a quarter of the time."""
    return orjson.dumps(moment)[1:-1].decode() if moment.tzinfo is UTC else moment.isoformat()


def decode_annotation(row: Mapping[str, Any]) -> Annotation:
    """The annotation of a plain row; raises DatasetError where a field is missing or malformed."""
    try:
        values = dict(row)
        values["finding"] = Finding(values["finding"])
        values["level"] = TruthLevel[values["level"].upper()]
        values["lesions"] = tuple(decode_lesion(lesion) for lesion in values.get("lesions", ()))
        values["answers"] = _pairs(values.get("answers", ()))
        if values.get("created_at"):
            values["created_at"] = datetime.fromisoformat(values["created_at"])
        values["redactions"] = tuple(_decode_shape(shape) for shape in values.get("redactions", ()))
        values["relations"] = tuple(
            Relation(str(start), str(end), str(direction), tuple(map(str, labels)))
            for start, end, direction, *labels in values.get("relations", ())
        )
        return Annotation(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed("annotation", row, error) from error


def encode_lesion(lesion: Lesion) -> dict[str, Any]:
    """Plain form of a lesion that `decode_lesion` reads back equal."""
    row = _without_defaults(lesion)
    row["box"] = _box_row(lesion.box)
    if lesion.shape is not None:
        row["shape"] = _encode_shape(lesion.shape)
    if lesion.keypoints:
        row["keypoints"] = [[p.x, p.y, p.name, p.visible] for p in lesion.keypoints]
    return row


def decode_lesion(row: Mapping[str, Any]) -> Lesion:
    """The lesion of a plain row; raises DatasetError where a field is missing or malformed."""
    try:
        values = dict(row)
        values["box"] = PixelBox(*values["box"])
        values["origin"] = Origin(values.get("origin", Origin.MANUAL))
        values["keypoints"] = tuple(KeyPoint(*point) for point in values.get("keypoints", ()))
        values["probabilities"] = tuple((str(k), float(v)) for k, v in values.get("probabilities", ()))
        values["attributes"] = _pairs(values.get("attributes", ()))
        if values.get("shape") is not None:
            values["shape"] = _decode_shape(values["shape"])
        return Lesion(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed("lesion", row, error) from error


def _without_defaults(value: Any) -> dict[str, Any]:
    columns = ((name, getattr(value, name), default) for name, default in _DEFAULTS[type(value)].items())
    return {name: current for name, current, default in columns if current != default}


def _defaults(kind: type[ImageRecord | Annotation | Lesion], *apart: str) -> dict[str, Any]:
    return {field.name: field.default for field in fields(kind) if field.name not in apart}


_LEVELS = tuple(level.name.lower() for level in TruthLevel)
_DEFAULTS = {
    ImageRecord: _defaults(ImageRecord, "image_id", "uri", "size"),
    Annotation: _defaults(Annotation, "image_id", "finding", "level", "lesions"),
    Lesion: _defaults(Lesion, "box"),
}
_NO_FACTS = tuple(default for name, default in _DEFAULTS[ImageRecord].items() if name != "original_name")
_RARE_FACTS = attrgetter(*(name for name in _DEFAULTS[ImageRecord] if name != "original_name"))
_SEEN_TO = ("author", "annotation_id", "lead_time", "created_at")
_NO_ANSWERS = tuple(default for name, default in _DEFAULTS[Annotation].items() if name not in _SEEN_TO)
_RARE_ANSWERS = attrgetter(*(name for name in _DEFAULTS[Annotation] if name not in _SEEN_TO))


def _encode_shape(shape: Shape) -> dict[str, Any]:
    kind = next(name for name, known in _SHAPES.items() if isinstance(shape, known))
    if isinstance(shape, Polygon):
        return {"kind": kind, "outline": shape.outline, "holes": shape.holes}
    if isinstance(shape, RleMask):
        return {"kind": kind, "size": [shape.size.width, shape.size.height], "counts": shape.counts}
    if isinstance(shape, PixelBox):
        return {"kind": kind, "values": _box_row(shape)}
    return {"kind": kind, "values": [float(getattr(shape, field.name)) for field in fields(shape)]}


def _decode_shape(row: Mapping[str, Any]) -> Shape:
    kind = _SHAPES[row["kind"]]
    if kind is Polygon:
        return Polygon(_ring(row["outline"]), tuple(_ring(hole) for hole in row.get("holes", ())))
    if kind is RleMask:
        return RleMask(ImageSize(*row["size"]), tuple(int(run) for run in row["counts"]))
    return kind(*row["values"])


def _ring(points: Any) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in points)


def _box_row(box: PixelBox) -> list[float]:
    return [float(edge) for edge in box.edges]


def _pairs(rows: Any) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(value)) for name, value in rows)


def _malformed(what: str, row: object, error: Exception) -> DatasetError:
    return DatasetError(what, str(row)[:200], f"a complete {what} ({error})", "Write the dataset again.")
