"""Label Studio's `result` lists, both ways: regions and choices in, our lesions and answers out, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converters.annotation import Finding, Lesion, Origin, Shape
from converters.errors import AnnotationError
from converters.geometry import (
    ImageSize,
    PercentBox,
    RleMask,
    RotatedBox,
    percent_to_pixel,
    percent_to_rotated,
    pixel_to_percent,
    rotated_to_percent,
)
from converters.label_studio import controls
from converters.label_studio.region_facts import region_facts, row_facts
from converters.label_studio.regions import decode_shape, encode_shape, envelope_of
from converters.raster import shape_to_mask, turned_box
from converters.taxonomy import Taxonomy

OPEN_SEVERITIES = {label: severity for severity, label in controls.OPEN_LABELS.items()}
"""Severity, or None, of the box labels that leave the diagnosis open."""

_READING_WIDTH = 40
_PAINTED = ("brushlabels", "polygonlabels")
_DRAWN = ("rectanglelabels", *_PAINTED)
_SAME_LESION = 0.5
"""From this overlap on, a rectangle and a painted mask of the same label are one lesion."""

FINDINGS = {label: Finding(value) for value, label in controls.FINDING_LABELS.items()}
"""Findings by the choice that stands for them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one submitted result says: lesions, the finding, other controls' answers by name, and what to burn out."""

    lesions: tuple[Lesion, ...]
    finding: Finding
    answers: tuple[tuple[str, str], ...] = ()
    redactions: tuple[Shape, ...] = ()

    def get(self, control: str) -> str | None:
        """The answer of an image-level control, or None where it was left empty."""
        return dict(self.answers).get(control)


def encode(lesions: Iterable[Lesion], size: ImageSize, taxonomy: Taxonomy, masks: bool = False) -> list[dict[str, Any]]:
    """Label Studio regions for lesions: a labelled rectangle each, with the reading beside it where there is one.

    With `masks` a lesion's mask follows its rectangle, for configs that have the brush.
    """
    result: list[dict[str, Any]] = []
    for number, lesion in enumerate(lesions):
        region = _region(lesion, lesion.region_id or f"lesion-{number}", size, taxonomy)
        result.append(region)
        if text := reading_text(lesion):
            result.append(_reading(region, text))
        if masks and isinstance(lesion.shape, RleMask):
            result.append(_painted(region, lesion.shape, size))
    return result


def encode_redactions(shapes: Sequence[Shape], size: ImageSize) -> list[dict[str, Any]]:
    """Label Studio regions for what is to be burned out of the pixels: turned or upright boxes around it."""
    return [_redaction(shape, f"{controls.REDACT}-{number}", size) for number, shape in enumerate(shapes)]


def encode_choice(control: str, value: str) -> dict[str, Any]:
    """Label Studio's result row for an image-level choice."""
    return {
        "from_name": control,
        "to_name": controls.IMAGE,
        "type": "choices",
        "value": {"choices": [value]},
    }


def encode_text(control: str, text: str) -> dict[str, Any]:
    """Label Studio's result row for an image-level text."""
    return {"from_name": control, "to_name": controls.IMAGE, "type": "textarea", "value": {"text": [text]}}


def decode(result: Sequence[Mapping[str, Any]], size: ImageSize, taxonomy: Taxonomy, item: str) -> Answer:
    """What a `result` list of our labelling configs says; raises AnnotationError naming `item` and the region."""
    if not isinstance(result, list | tuple) or not all(_is_row(row) for row in result):
        raise AnnotationError(item, str(result)[:80], "a list of rows with a value each", "Submit the task again.")
    lesions: list[Lesion] = []
    painted: list[Lesion] = []
    answers: dict[str, str] = {}
    redactions: list[Shape] = []
    for row in result:
        kind = row.get("type")
        if kind in _DRAWN and controls.REDACT in _labels(row, kind):
            redactions.append(_burned(row, kind, size, item))
        elif kind == "rectanglelabels":
            lesions.append(_lesion(row, size, taxonomy, item))
        elif kind in _PAINTED:
            painted.append(_mask(row, kind, size, taxonomy, item))
        elif kind in ("choices", "textarea") and row.get("from_name") != controls.READING:
            answers[str(row.get("from_name"))] = _text(row, item)
        elif row.get("from_name") != controls.READING:
            raise AnnotationError(
                item, kind, "rectanglelabels, choices or textarea", "Use the generated labelling config."
            )
    lesions = _with_masks(lesions, painted)
    finding = _finding(answers, lesions, item)
    return Answer(tuple(lesions), finding, tuple(sorted(answers.items())), tuple(redactions))


def reading_text(lesion: Lesion) -> str:
    """The model's differential, best first, as far as one line beside the box holds it; empty for a person's lesion.

    Such as `Melanoma 71 % · Melanocytic nevus 22 %` or `Moderate 92 % · High 5 % · Low 3 %`.
    """
    text = ""
    for name, share in sorted(lesion.probabilities, key=lambda pair: -pair[1])[:3]:
        entry = f"{name.removesuffix(' severity')} {round(100 * share)} %"
        longer = f"{text} · {entry}" if text else entry
        if text and len(longer) > _READING_WIDTH:
            break
        text = longer
    return text


def box_label(lesion: Lesion, taxonomy: Taxonomy) -> str:
    """The label a lesion's box carries: its diagnosis by name, else its severity with the diagnosis left open."""
    if lesion.diagnosis is not None:
        return taxonomy.resolve(lesion.diagnosis).name
    return controls.OPEN_LABELS[lesion.severity]


def _region(lesion: Lesion, region_id: str, size: ImageSize, taxonomy: Taxonomy) -> dict[str, Any]:
    rotated = lesion.shape if isinstance(lesion.shape, RotatedBox) else None
    box = rotated_to_percent(rotated, size) if rotated else pixel_to_percent(lesion.box, size)
    value: dict[str, Any] = {
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "rotation": box.rotation,
        "rectanglelabels": [box_label(lesion, taxonomy)],
    }
    region = {
        "id": region_id,
        "from_name": controls.DIAGNOSIS,
        "to_name": controls.IMAGE,
        "type": "rectanglelabels",
        "origin": lesion.origin.value,
        "original_width": size.width,
        "original_height": size.height,
        "image_rotation": 0,
        "value": value,
        **row_facts(lesion.attributes),
    }
    return region if lesion.score is None else {**region, "score": lesion.score}


def _reading(region: Mapping[str, Any], text: str) -> dict[str, Any]:
    value = {key: region["value"][key] for key in ("x", "y", "width", "height", "rotation")}
    kept = ("id", "to_name", "original_width", "original_height", "image_rotation")
    return {
        **{key: region[key] for key in kept},
        "from_name": controls.READING,
        "type": "textarea",
        "value": {**value, "text": [text]},
    }


def _lesion(row: Mapping[str, Any], size: ImageSize, taxonomy: Taxonomy, item: str) -> Lesion:
    region = f"{item}, region {row.get('id')}"
    value = row.get("value", {})
    labels = value.get("rectanglelabels") or []
    if len(labels) > 1:
        raise AnnotationError(region, labels, "one diagnosis for a box", "Remove the others.")
    percent = _percent_box(value, region)
    label = labels[0] if labels else controls.OPEN_LABELS[None]
    diagnosis = None if label in OPEN_SEVERITIES else taxonomy.resolve(label, region)
    turned = percent.rotation % 360 != 0
    return Lesion(
        box=percent_to_pixel(percent, size),
        diagnosis=diagnosis.code if diagnosis else None,
        severity=diagnosis.severity.value if diagnosis else OPEN_SEVERITIES[label],
        score=row.get("score"),
        shape=percent_to_rotated(percent, size) if turned else None,
        region_id=row.get("id"),
        origin=read_origin(row, region),
        attributes=region_facts(row),
    )


def _labels(row: Mapping[str, Any], kind: str) -> Sequence[str]:
    found = row.get("value", {}).get(kind)
    return [str(label).casefold() for label in found] if isinstance(found, list) else []


def _burned(row: Mapping[str, Any], kind: str, size: ImageSize, item: str) -> Shape:
    shape = decode_shape(kind.removesuffix("labels"), row.get("value", {}), size, f"{item}, region {row.get('id')}")
    assert not isinstance(shape, tuple), "a drawn region is no point"
    return shape


def _redaction(shape: Shape, region_id: str, size: ImageSize) -> dict[str, Any]:
    _, value = encode_shape(turned_box(shape), size)
    return {
        "id": region_id,
        "from_name": controls.DIAGNOSIS,
        "to_name": controls.IMAGE,
        "type": "rectanglelabels",
        "original_width": size.width,
        "original_height": size.height,
        "image_rotation": 0,
        "value": {**value, "rectanglelabels": [controls.REDACT]},
    }


def _painted(region: Mapping[str, Any], mask: RleMask, size: ImageSize) -> dict[str, Any]:
    kind, value = encode_shape(mask, size)
    labels = {f"{kind}labels": region["value"]["rectanglelabels"]}
    row = {**region, "id": f"{region['id']}-mask", "from_name": controls.MASK, "type": f"{kind}labels"}
    return {**row, "value": {**value, **labels}}


def _mask(row: Mapping[str, Any], kind: str, size: ImageSize, taxonomy: Taxonomy, item: str) -> Lesion:
    """The lesion of a painted region: its mask, the box around it, and its label."""
    value, region = row.get("value", {}), f"{item}, region {row.get('id')}"
    shape = decode_shape(kind.removesuffix("labels"), value, size, region)
    assert not isinstance(shape, tuple), "a brush or a polygon is no point"
    mask = shape if isinstance(shape, RleMask) else RleMask.from_array(shape_to_mask(shape, size))
    box = pixel_to_percent(envelope_of(mask), size)
    sides = {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
    boxed = {**row, "value": {**sides, "rectanglelabels": value.get(kind) or value.get("labels") or []}}
    return replace(_lesion(boxed, size, taxonomy, item), shape=mask)


def _with_masks(boxed: list[Lesion], painted: Sequence[Lesion]) -> list[Lesion]:
    """Lesions of which the painted ones lend their mask to the rectangle of the same label that they fill."""
    lesions = list(boxed)
    for mask in painted:
        near = [i for i, x in enumerate(lesions) if x.shape is None and _is_same(x, mask)]
        if near:
            place = max(near, key=lambda i: lesions[i].box.iou(mask.box))
            said = tuple(sorted({*lesions[place].attributes, *mask.attributes}))
            lesions[place] = replace(lesions[place], box=mask.box, shape=mask.shape, attributes=said)
        else:
            lesions.append(mask)
    return lesions


def _is_same(boxed: Lesion, painted: Lesion) -> bool:
    labels_match = (boxed.diagnosis, boxed.severity) == (painted.diagnosis, painted.severity)
    return labels_match and boxed.box.iou(painted.box) >= _SAME_LESION


def _is_row(row: object) -> bool:
    return isinstance(row, Mapping) and isinstance(row.get("value", {}), Mapping)


def read_origin(row: Mapping[str, Any], region: str) -> Origin:
    """How a result row came about; raises AnnotationError naming `region` for a word that Label Studio has not."""
    said = row.get("origin") or Origin.MANUAL
    if said not in tuple(Origin):
        raise AnnotationError(f"{region}, origin", said, f"one of {', '.join(Origin)}", "Submit the task again.")
    return Origin(said)


def _percent_box(value: Mapping[str, Any], region: str) -> PercentBox:
    try:
        x, y, width, height = (float(value[key]) for key in ("x", "y", "width", "height"))
        return PercentBox(x, y, width, height, float(value.get("rotation") or 0))
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotationError(region, value, "x, y, width and height in percent", "Redraw the box.") from error


def _text(row: Mapping[str, Any], item: str) -> str:
    value = row.get("value", {})
    found = value.get("choices") or value.get("text") or []
    if not isinstance(found, list):
        found = [found]
    if row.get("type") == "choices" and len(found) > 1:
        raise AnnotationError(f"{item}, {row.get('from_name')}", found, "a single choice", "Choose one.")
    return "\n".join(str(part) for part in found)


def _finding(answers: Mapping[str, str], lesions: Sequence[Lesion], item: str) -> Finding:
    said = answers.get(controls.FINDING)
    if said is None:
        return Finding.LESIONS if lesions else Finding.NOT_LOOKED_AT
    if said not in FINDINGS:
        raise AnnotationError(f"{item}, finding", said, f"one of {', '.join(FINDINGS)}", "Choose again.")
    finding = FINDINGS[said]
    if (finding is Finding.LESIONS) != bool(lesions) and finding is not Finding.UNGRADABLE:
        raise AnnotationError(
            f"{item}, finding", said, "boxes exactly when lesions are marked", "Draw the boxes or change the answer."
        )
    return finding
