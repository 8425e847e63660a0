"""Label rows of the YOLO family: one lesion to one line, coordinates as shares of the image's sides.

Source: ultralytics' documentation of its detect, segment, OBB and pose datasets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from converters.annotation import Lesion
from converters.errors import AnnotationError
from converters.geometry import (
    Ellipse,
    ImageSize,
    KeyPoint,
    PixelBox,
    Point,
    Polygon,
    RleMask,
    RotatedBox,
    envelope,
)
from converters.raster import clipped_ring, corners, joined, mask_to_polygons, region, turned_box
from converters.taxonomy import Diagnosis, Taxonomy

_BOX_ROW = "%d %.9g %.9g %.9g %.9g"
_SLACK = 1e-4
"""Share of a side by which rounding may push a coordinate out of the image."""


class Task(StrEnum):
    """What a row of a YOLO label file describes."""

    DETECT = "detect"
    SEGMENT = "segment"
    OBB = "obb"
    POSE = "pose"


@dataclass(frozen=True, slots=True)
class Classes:
    """Diagnoses by the class number that a dataset's own list of names gives them."""

    by_number: tuple[Diagnosis, ...]
    keypoints: tuple[str, ...] = ()
    dimensions: int = 3


def lesion_rows(lesion: Lesion, size: ImageSize, taxonomy: Taxonomy, task: Task, keypoints: Sequence[str]) -> list[str]:
    """The lesion's lines; none where the task cannot describe it (no diagnosis, no area, no points)."""
    if lesion.diagnosis is None:
        return []
    number = taxonomy.resolve(lesion.diagnosis).id
    if task is Task.DETECT:
        return _box_rows(number, lesion.box, size)
    if task is Task.POSE:
        return _pose_rows(number, lesion, size, keypoints)
    if task is Task.OBB:
        shape = region(lesion)
        return [_points_row(number, corners(turned_box(shape)), size)] if lesion.box.area > 0 else []
    points = clipped_ring(ring(lesion, size), size)
    return [_points_row(number, points, size)] if len(points) > 2 else []


def ring(lesion: Lesion, size: ImageSize) -> tuple[Point, ...]:
    """One outline that fills the lesion's region, parts and holes joined by cuts; empty for a region without area."""
    shape = region(lesion)
    if isinstance(shape, RleMask):
        return joined(mask_to_polygons(shape.to_array()))
    if isinstance(shape, Polygon):
        return joined([shape])
    if isinstance(shape, Ellipse):
        return shape.outline().outline if shape.x_radius and shape.y_radius else ()
    return corners(shape) if lesion.box.area > 0 else ()


def _box_rows(number: int, box: PixelBox, size: ImageSize) -> list[str]:
    box = box.clipped(size)
    w, h = size.width, size.height
    x0, y0, x1, y1 = box.x_min, box.y_min, box.x_max, box.y_max
    if x1 <= x0 or y1 <= y0:
        return []
    return [_BOX_ROW % (number, (x0 + x1) / (2 * w), (y0 + y1) / (2 * h), (x1 - x0) / w, (y1 - y0) / h)]


def _points_row(number: int, points: Sequence[Point], size: ImageSize) -> str:
    w, h = size.width, size.height
    flat = " ".join(f"{min(max(x / w, 0.0), 1.0):.9g} {min(max(y / h, 0.0), 1.0):.9g}" for x, y in points)
    return f"{number} {flat}"


def _pose_rows(number: int, lesion: Lesion, size: ImageSize, names: Sequence[str]) -> list[str]:
    rows = _box_rows(number, lesion.box, size)
    if not rows or not names:
        return rows
    points = {point.name: point for point in lesion.keypoints}
    return [f"{rows[0]} {' '.join(_point(points.get(name), size) for name in names)}"]


def _point(point: KeyPoint | None, size: ImageSize) -> str:
    if point is None:
        return "0 0 0"
    return f"{point.x / size.width:.9g} {point.y / size.height:.9g} {2 if point.visible else 1}"


def parse_row(line: str, size: ImageSize, classes: Classes, task: Task, item: str) -> Lesion:
    """The lesion of one line; raises AnnotationError naming `item` for a row of another task or outside the image."""
    cells = line.split()
    try:
        number, values = int(cells[0]), [float(cell) for cell in cells[1:]]
    except ValueError as error:
        raise AnnotationError(item, line[:80], "a class number and coordinates", "Export the labels again.") from error
    if not 0 <= number < len(classes.by_number):
        expected = f"a class number below {len(classes.by_number)}"
        raise AnnotationError(item, number, expected, "Name the dataset's own data.yaml.")
    diagnosis = classes.by_number[number]
    lesion = Lesion(PixelBox(0, 0, 0, 0), diagnosis.code, diagnosis.severity.value)
    if task is Task.SEGMENT:
        return _outlined(lesion, _points(values, size, item, task, None), item)
    if task is Task.OBB:
        return _turned(lesion, _points(values, size, item, task, 4), item)
    return _boxed(lesion, values, size, classes, task, item)


def _boxed(lesion: Lesion, values: list[float], size: ImageSize, classes: Classes, task: Task, item: str) -> Lesion:
    wanted = 4 + (len(classes.keypoints) * classes.dimensions if task is Task.POSE else 0)
    score = values.pop() if len(values) == wanted + 1 else None
    if len(values) != wanted:
        cure = "Read it with --from yolo-segment, yolo-obb or yolo-pose."
        raise AnnotationError(item, f"{len(values)} numbers", f"{wanted} in a row of task {task}", cure)
    if score is not None and not 0 <= score <= 1:
        raise AnnotationError(item, score, "a score from 0 to 1", "Export the labels again.")
    x, y, width, height = values[:4]
    edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if min(width, height) <= 0 or not all(-_SLACK <= edge <= 1 + _SLACK for edge in edges):
        raise AnnotationError(item, values[:4], "a box inside the image, in shares of its sides", "Correct the row.")
    box = PixelBox(edges[0] * size.width, edges[1] * size.height, edges[2] * size.width, edges[3] * size.height)
    points = _keypoints(values[4:], size, classes, item)
    return replace(lesion, box=box.clipped(size), score=score, keypoints=points)


def _keypoints(values: Sequence[float], size: ImageSize, classes: Classes, item: str) -> tuple[KeyPoint, ...]:
    found = []
    step = classes.dimensions
    for index, name in enumerate(classes.keypoints if values else ()):
        x, y, *rest = values[index * step : (index + 1) * step]
        seen = rest[0] if rest else float(x > 0 or y > 0) * 2
        if seen not in (0, 1, 2) or not all(-_SLACK <= part <= 1 + _SLACK for part in (x, y)):
            raise AnnotationError(item, (x, y, seen), "a point inside the image with 0, 1 or 2", "Correct the row.")
        if seen:
            found.append(KeyPoint(x * size.width, y * size.height, name, seen == 2))
    return tuple(found)


def _points(values: list[float], size: ImageSize, item: str, task: Task, count: int | None) -> tuple[Point, ...]:
    right_length = len(values) == 2 * count if count else len(values) >= 6 and len(values) % 2 == 0
    if not right_length:
        wanted = f"{2 * count} numbers" if count else "three points or more"
        wanted = f"{wanted} in a row of task {task}"
        raise AnnotationError(item, f"{len(values)} numbers", wanted, "Read it with --from yolo.")
    if not all(-_SLACK <= value <= 1 + _SLACK for value in values):
        raise AnnotationError(item, values[:8], "points inside the image, in shares of its sides", "Correct the row.")
    clipped = [min(max(value, 0.0), 1.0) for value in values]
    return tuple((x * size.width, y * size.height) for x, y in zip(clipped[::2], clipped[1::2], strict=True))


def _outlined(lesion: Lesion, points: tuple[Point, ...], item: str) -> Lesion:
    shape = Polygon(points)
    if shape.envelope().area <= 0:
        raise AnnotationError(item, points[:4], "an outline with an area", "Correct the row.")
    return replace(lesion, box=shape.envelope(), shape=shape)


def _turned(lesion: Lesion, points: tuple[Point, ...], item: str) -> Lesion:
    box = envelope(points)
    if box.area <= 0:
        raise AnnotationError(item, points, "four corners around an area", "Correct the row.")
    if {*points} == {*corners(box)}:
        return replace(lesion, box=box)
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = points
    width, height = math.hypot(bx - ax, by - ay), math.hypot(dx - ax, dy - ay)
    skew = math.hypot(ax + cx - bx - dx, ay + cy - by - dy)
    square = abs((bx - ax) * (dx - ax) + (by - ay) * (dy - ay))
    if skew > 0.01 * (width + height) + 0.01 or square > 0.02 * width * height + 0.05:
        return replace(lesion, box=box, shape=Polygon(points))
    angle = math.degrees(math.atan2(by - ay, bx - ax))
    centre = ((ax + bx + cx + dx) / 4, (ay + by + cy + dy) / 4)
    return replace(lesion, box=box, shape=RotatedBox(*centre, width, height, angle))
