"""What a target gives back against what was put in: count, class, overlap, mask area, points and facts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from converters.annotation import Annotation, Confirmation, ImageRecord, Lesion, Shape
from converters.dataset import DatasetItem
from converters.formats.contract import ANSWER_FIELDS, LESION_FIELDS, RECORD_FIELDS, Carries, Shapes
from converters.geometry import Ellipse, ImageSize, PixelBox, Polygon, RleMask, RotatedBox
from converters.raster import Mask, mask_iou, on_outline, region, shape_to_mask, turned_box
from converters.report import Entry, Kind

_SAME_REGION = 0.5
_ON_EDGE = 0.01
STICKS_OUT = "has changed: it sticks out of the image, and the format holds points inside only"


@dataclass(frozen=True, slots=True)
class Difference:
    """One respect in which an item came back different, and whether its format is known not to carry it."""

    field: str
    value: str
    reason: str
    expected: bool


def compare(item: DatasetItem, back: DatasetItem, carries: Carries, name: str) -> Iterator[Entry]:
    """The entries of one item: each label that changed, and in one line the facts its format has no words for."""
    silent: list[str] = []
    for difference in _differences(item, back, carries):
        if difference.expected and not difference.reason:
            silent.append(difference.field)
        else:
            kind = Kind.EXPECTED if difference.expected else Kind.LOST
            yield Entry(kind, name, difference.field, difference.value, difference.reason)
    if silent:
        facts = sys.intern(", ".join(dict.fromkeys(silent)))
        yield Entry(Kind.EXPECTED, name, "facts", facts, "the format has no words for them")


def _differences(item: DatasetItem, back: DatasetItem, carries: Carries) -> Iterator[Difference]:
    if item.record.size != back.record.size:
        yield Difference("size", str(item.record.size), f"came back as {back.record.size}", False)
    if item.truth.finding != back.truth.finding:
        reason = f"came back as {back.truth.finding.value}"
        yield Difference("finding", item.truth.finding.value, reason, False)
    if item.split is not None and item.split != back.split:
        yield Difference(
            "split", item.split.value, "" if not carries.splits else f"is {back.split}", not carries.splits
        )
    yield from _facts(item.record, back.record, RECORD_FIELDS, carries)
    yield from _facts(item.truth, back.truth, _SAID, carries)
    yield from _lesions(item, back, carries)


def _facts(
    one: ImageRecord | Annotation | Lesion, other: object, names: frozenset[str], carries: Carries
) -> Iterator[Difference]:
    for name in _DECLARED[type(one).__name__, names]:
        said = getattr(one, name)
        if said == getattr(other, name) or _is_empty(said):
            continue
        if name in carries.fields:
            yield Difference(name, str(said)[:80], f"came back as {str(getattr(other, name))[:80]}", False)
        else:
            yield Difference(name, str(said)[:80], "", True)


def _is_empty(said: object) -> bool:
    return said is None or said is False or said is Confirmation.UNKNOWN or said == "" or said == ()


def _names(kind: type[ImageRecord | Annotation | Lesion], names: frozenset[str]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.name in names)


_SAID = ANSWER_FIELDS | {"redactions"}
_TOLD = LESION_FIELDS - {"severity"}
_DECLARED = {
    ("ImageRecord", RECORD_FIELDS): _names(ImageRecord, RECORD_FIELDS),
    ("Annotation", _SAID): _names(Annotation, _SAID),
    ("Lesion", _TOLD): _names(Lesion, _TOLD),
}


def _lesions(item: DatasetItem, back: DatasetItem, carries: Carries) -> Iterator[Difference]:
    size = item.record.size
    left = list(back.truth.lesions)
    drawn = item.truth.lesions
    if carries.boxes_as_pixels:
        drawn = tuple(_as_pixels(lesion, size) for lesion in drawn)
    if not carries.instances and len(merged := _merged(drawn, size)) < len(drawn):
        yield Difference("lesions", f"{len(drawn)}", f"kept as {len(merged)}, one for each class", True)
        drawn = merged
    for number, lesion in enumerate(drawn, 1):
        label = f"lesion {number} ({lesion.title})"
        partner = _partner(lesion, left, size, carries)
        if partner is None:
            yield Difference(label, _shown(lesion.box), _why_lost(lesion, size, carries), False)
            continue
        left.remove(partner)
        yield from _lesion(label, lesion, partner, size, carries)
    for extra in left:
        yield Difference("lesion", _shown(extra.box), "came back although nobody drew it", False)


def _as_pixels(lesion: Lesion, size: ImageSize) -> Lesion:
    mask = RleMask.from_array(shape_to_mask(region(lesion), size))
    return replace(lesion, shape=mask if lesion.shape is None else lesion.shape, box=mask.envelope() or lesion.box)


def _merged(lesions: Sequence[Lesion], size: ImageSize) -> tuple[Lesion, ...]:
    """One lesion for each class, over the pixels of all its regions."""
    by_class: dict[str | None, list[Lesion]] = {}
    for lesion in lesions:
        by_class.setdefault(lesion.diagnosis, []).append(lesion)
    merged = []
    for same in by_class.values():
        whole = np.logical_or.reduce([shape_to_mask(region(lesion), size) for lesion in same])
        merged.append(replace(same[0], shape=RleMask.from_array(whole)) if len(same) > 1 else same[0])
    return tuple(merged)


def _partner(lesion: Lesion, candidates: Sequence[Lesion], size: ImageSize, carries: Carries) -> Lesion | None:
    same = [found for found in candidates if found.diagnosis == lesion.diagnosis]
    if carries.shapes is Shapes.NONE:
        return same[0] if same else None
    if lesion.shape is not None and carries.shapes is Shapes.PIXELS:
        drawn = shape_to_mask(lesion.shape, size)
        overlap = {index: mask_iou(drawn, shape_to_mask(region(found), size)) for index, found in enumerate(same)}
        best = max(overlap, key=lambda index: overlap[index], default=None)
        return same[best] if best is not None and overlap[best] > _SAME_REGION else None
    box = _kept_box(lesion, carries).clipped(size)
    near = [found for found in same if _edge_distance(box, found.box.clipped(size)) <= _reach(lesion, carries)]
    return min(near, key=lambda found: _edge_distance(box, found.box.clipped(size)), default=None)


def _kept_box(lesion: Lesion, carries: Carries) -> PixelBox:
    """The box that the format's form of the lesion fills."""
    if lesion.shape is None or carries.shapes is Shapes.BOX:
        return lesion.box
    shape = turned_box(lesion.shape) if carries.shapes is Shapes.ROTATED else lesion.shape
    return shape if isinstance(shape, PixelBox) else shape.envelope() or lesion.box


def _reach(lesion: Lesion, carries: Carries) -> float:
    """How far an edge may lie from the drawn one: rounding only, but more where a turned box was measured anew."""
    if lesion.shape is None or carries.shapes is not Shapes.ROTATED:
        return carries.tolerance
    return max(carries.tolerance, 0.02 * max(lesion.box.width, lesion.box.height))


def _edge_distance(one: PixelBox, other: PixelBox) -> float:
    return max(
        abs(one.x_min - other.x_min),
        abs(one.y_min - other.y_min),
        abs(one.x_max - other.x_max),
        abs(one.y_max - other.y_max),
    )


def _lesion(label: str, lesion: Lesion, back: Lesion, size: ImageSize, carries: Carries) -> Iterator[Difference]:
    for difference in _facts(lesion, back, _TOLD, carries):
        where = difference.field if difference.expected else f"{label} {difference.field}"
        yield Difference(where, difference.value, difference.reason, difference.expected)
    if lesion.diagnosis is None and lesion.severity != back.severity:
        yield Difference(f"{label} severity", str(lesion.severity), f"came back as {back.severity}", False)
    yield from _shape(label, lesion, back, size, carries)
    yield from _points(label, lesion, back, carries)


def _shape(label: str, lesion: Lesion, back: Lesion, size: ImageSize, carries: Carries) -> Iterator[Difference]:
    if lesion.shape is None or lesion.shape == back.shape or carries.shapes is Shapes.NONE:
        return
    kind = type(lesion.shape).__name__
    if carries.shapes is Shapes.BOX or (carries.shapes is Shapes.ROTATED and not isinstance(lesion.shape, RotatedBox)):
        yield Difference(f"{label} shape", kind, f"kept as {carries.shapes.value}", True)
        return
    one, other = shape_to_mask(lesion.shape, size), shape_to_mask(region(back), size)
    drawn, differing = int(one.sum()), _changed(lesion.shape, one, other)
    if differing > _allowance(lesion, one.sum()):
        box = _kept_box(lesion, carries)
        cut = carries.shapes is Shapes.ROTATED and box.clipped(size) != box
        reason = STICKS_OUT if cut else f"{differing} px differ after reading back"
        yield Difference(f"{label} pixels", f"{drawn} px", reason, False)
    elif type(lesion.shape) is not type(back.shape):
        yield Difference(f"{label} shape", kind, f"kept as {type(region(back)).__name__}", True)


def _changed(shape: Shape, one: Mask, other: Mask) -> int:
    """Pixels that changed sides, without those whose centre lies on an edge: there, rounding decides."""
    pixels = np.argwhere(np.logical_xor(one, other))
    if isinstance(shape, Polygon | PixelBox | RotatedBox) and len(pixels):
        pixels = pixels[~on_outline(shape, pixels, _ON_EDGE)]
    return len(pixels)


def _allowance(lesion: Lesion, area: float) -> float:
    """Pixels that may change sides: a few at corners, more where a curve became a polygon."""
    if isinstance(lesion.shape, Ellipse):
        return float(2 + 0.03 * area + 0.5 * (lesion.box.width + lesion.box.height))
    return float(2 + 0.002 * area)


def _points(label: str, lesion: Lesion, back: Lesion, carries: Carries) -> Iterator[Difference]:
    if not lesion.keypoints:
        return
    if not carries.keypoints:
        yield Difference("keypoints", str(len(lesion.keypoints)), "", True)
        return
    found = {point.name: point for point in back.keypoints}
    for point in lesion.keypoints:
        other = found.get(point.name)
        if other is None or max(abs(point.x - other.x), abs(point.y - other.y)) > carries.tolerance:
            yield Difference(
                f"{label} keypoint {point.name}", f"({point.x:g}, {point.y:g})", f"came back as {other}", False
            )
        elif point.visible != other.visible:
            yield Difference(f"{label} keypoint {point.name}", "hidden", "", True)


def why_absent(item: DatasetItem, carries: Carries) -> str:
    """Why an image is not in what was read back, as far as its lesions tell."""
    lesions = item.truth.lesions
    if carries.shapes is Shapes.NONE and len({lesion.diagnosis for lesion in lesions} - {None}) > 1:
        return "is left out: its lesions have several diagnoses, and the format has one for an image"
    said = dict.fromkeys(_why_unfit(lesion, item.record.size, carries) for lesion in lesions)
    reasons = [reason for reason in said if reason]
    return f"is left out with its lesions: one {', one '.join(reasons)}" if reasons else "is not in what was read back"


def _why_unfit(lesion: Lesion, size: ImageSize, carries: Carries) -> str:
    """Why a format has no place for a lesion; empty where it should have."""
    if lesion.diagnosis is None:
        return "has no diagnosis, and the format writes diagnoses only"
    box = lesion.box.clipped(size)
    if box.area <= 0 or (carries.boxes_as_pixels and not shape_to_mask(region(lesion), size).any()):
        return "covers no pixel of the image"
    return ""


def _why_lost(lesion: Lesion, size: ImageSize, carries: Carries) -> str:
    if reason := _why_unfit(lesion, size, carries):
        return f"is gone: it {reason}"
    box = _kept_box(lesion, carries)
    if carries.shapes is Shapes.ROTATED and box.clipped(size) != box:
        return STICKS_OUT
    return "is gone or has moved or changed its class"


def _shown(box: PixelBox) -> str:
    return f"[{box.x_min:g}, {box.y_min:g}, {box.x_max:g}, {box.y_max:g}]"
