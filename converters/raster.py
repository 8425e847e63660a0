"""From outlines to pixels and back: a pixel belongs to a region when its centre lies inside (even-odd rule)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from converters.annotation import Lesion, Shape
from converters.geometry import Ellipse, ImageSize, PixelBox, Point, Polygon, RleMask, RotatedBox

Mask = NDArray[np.bool_]


def shape_to_mask(shape: Shape, size: ImageSize) -> Mask:
    """The pixels of an image of the given size whose centres lie in the shape, as booleans of (height, width).

    Raises GeometryError where a mask of another size is given.
    """
    if isinstance(shape, RleMask):
        return shape.to_array()
    if isinstance(shape, Polygon):
        return _filled((shape.outline, *shape.holes), size)
    if isinstance(shape, Ellipse):
        return _ellipse(shape, size)
    return _filled((corners(shape),), size)


def on_outline(shape: Polygon | PixelBox | RotatedBox, pixels: NDArray[np.intp], reach: float) -> Mask:
    """Which pixels, given as (N, 2) rows and columns, have their centre within `reach` pixels of the outline."""
    rings = (shape.outline, *shape.holes) if isinstance(shape, Polygon) else (corners(shape),)
    centres = pixels[:, ::-1] + 0.5
    near = np.zeros(len(centres), dtype=bool)
    for ring in rings:
        starts = np.asarray(ring, dtype=float)
        for start, edge in zip(starts, np.roll(starts, -1, axis=0) - starts, strict=True):
            along = np.clip((centres - start) @ edge / max(float(edge @ edge), 1e-12), 0, 1)
            near |= np.linalg.norm(centres - start - along[:, None] * edge, axis=1) <= reach
    return near


def corners(shape: PixelBox | RotatedBox) -> tuple[Point, Point, Point, Point]:
    """The four corners of a box in pixels, clockwise from its own top-left one."""
    if isinstance(shape, RotatedBox):
        return shape.corners()
    return (
        (shape.x_min, shape.y_min),
        (shape.x_max, shape.y_min),
        (shape.x_max, shape.y_max),
        (shape.x_min, shape.y_max),
    )


def region(lesion: Lesion) -> Shape:
    """A lesion's own shape, or its box where it has none."""
    return lesion.box if lesion.shape is None else lesion.shape


def turned_box(shape: Shape) -> PixelBox | RotatedBox:
    """The box, turned where the shape is, that stands for it where only boxes are known."""
    if isinstance(shape, PixelBox | RotatedBox):
        return shape
    if isinstance(shape, Ellipse):
        return RotatedBox(shape.x_centre, shape.y_centre, 2 * shape.x_radius, 2 * shape.y_radius, shape.angle)
    return shape.envelope() or PixelBox(0, 0, 0, 0)


def mask_iou(one: Mask, other: Mask) -> float:
    """Shared pixels over all pixels of two masks, in [0, 1]; 1 where both are empty."""
    union = np.logical_or(one, other).sum()
    return float(np.logical_and(one, other).sum() / union) if union else 1.0


def mask_to_polygons(mask: Mask) -> tuple[Polygon, ...]:
    """The mask's parts as polygons along pixel edges, each with its holes; filling them gives the same mask again.

    Pixels that touch only at a corner belong to different parts.
    """
    rings = _traced(np.pad(mask, 1))
    outer = [ring for ring in rings if _signed_area(ring) > 0]
    holes = [ring for ring in rings if _signed_area(ring) < 0]
    owned: dict[int, list[tuple[Point, ...]]] = {}
    for hole in holes:
        owned.setdefault(_owner(hole, outer), []).append(hole)
    return tuple(Polygon(ring, tuple(owned.get(index, ()))) for index, ring in enumerate(outer))


def joined(polygons: Iterable[Polygon]) -> tuple[Point, ...]:
    """One ring that covers all the polygons and leaves their holes open; empty where there is no polygon.

    For formats that know a single ring: parts and holes are joined by cuts of no width, so that even-odd filling of the
    ring equals that of the parts with their holes.
    """
    rings = [ring for polygon in polygons for ring in (polygon.outline, *polygon.holes)]
    whole = list(rings[0]) if rings else []
    for ring in rings[1:]:
        at, into = _nearest(whole, ring)
        whole = [*whole[: at + 1], *ring[into:], *ring[: into + 1], whole[at], *whole[at + 1 :]]
    return tuple(whole)


def clipped_ring(ring: Sequence[Point], size: ImageSize) -> tuple[Point, ...]:
    """The part of a ring inside the image; empty where none is. Source: Sutherland and Hodgman (1974)."""
    points = list(ring)
    for axis, limit, inward in ((0, 0.0, 1), (0, float(size.width), -1), (1, 0.0, 1), (1, float(size.height), -1)):
        points = _cut(points, axis, limit, inward)
    return tuple(points)


def _cut(points: list[Point], axis: int, limit: float, inward: int) -> list[Point]:
    kept: list[Point] = []
    for before, point in zip([*points[-1:], *points[:-1]], points, strict=True):
        was_in, is_in = (inward * (p[axis] - limit) >= 0 for p in (before, point))
        if was_in != is_in:
            share = (limit - before[axis]) / (point[axis] - before[axis])
            x, y = (a + share * (b - a) for a, b in zip(before, point, strict=True))
            kept.append((limit, y) if axis == 0 else (x, limit))
        if is_in:
            kept.append(point)
    return kept


def _filled(rings: Iterable[Sequence[Point]], size: ImageSize) -> Mask:
    flips = np.zeros((size.height, size.width + 1), dtype=bool)
    for ring in rings:
        points = np.asarray(ring, dtype=float)
        following = np.roll(points, -1, axis=0)
        for (x0, y0), (x1, y1) in zip(points.tolist(), following.tolist(), strict=True):
            _flip_right_of_edge(flips, x0, y0, x1, y1)
    return np.asarray(np.logical_xor.accumulate(flips, axis=1)[:, : size.width])


def _flip_right_of_edge(flips: Mask, x0: float, y0: float, x1: float, y1: float) -> None:
    top, bottom = min(y0, y1), max(y0, y1)
    height, columns = flips.shape
    first = int(np.clip(np.ceil(top - 0.5), 0, height))
    last = int(np.clip(np.ceil(bottom - 0.5), 0, height))
    if first >= last:
        return
    rows = np.arange(first, last)
    crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
    flips[rows, np.clip(np.ceil(crossings - 0.5), 0, columns - 1).astype(int)] ^= True


def _ellipse(shape: Ellipse, size: ImageSize) -> Mask:
    if not shape.x_radius or not shape.y_radius:
        return np.zeros((size.height, size.width), dtype=bool)
    angle = np.radians(shape.angle)
    x = np.arange(size.width) + 0.5 - shape.x_centre
    y = (np.arange(size.height) + 0.5 - shape.y_centre)[:, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray((along / shape.x_radius) ** 2 + (across / shape.y_radius) ** 2 <= 1)


def _traced(padded: Mask) -> list[tuple[Point, ...]]:
    """Closed rings along pixel edges with the mask on the right hand (clockwise on the screen for outer rings)."""
    following = _edges(padded)
    rings = []
    while following:
        start = next(iter(following))
        rings.append(_straightened(_chain(following, start)))
    return rings


Corner = tuple[int, int]


def _edges(padded: Mask) -> dict[Corner, list[Corner]]:
    inside = padded[1:-1, 1:-1]
    sides = (
        (inside & ~padded[:-2, 1:-1], (0, 0), (1, 0)),
        (inside & ~padded[1:-1, 2:], (1, 0), (1, 1)),
        (inside & ~padded[2:, 1:-1], (1, 1), (0, 1)),
        (inside & ~padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    following: dict[Corner, list[Corner]] = {}
    for found, (x0, y0), (x1, y1) in sides:
        for y, x in np.argwhere(found).tolist():
            following.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    return following


def _chain(following: dict[Corner, list[Corner]], start: Corner) -> list[Corner]:
    ring, here, heading = [start], start, (0, 0)
    while True:
        options = following[here]
        after = max(options, key=lambda p: heading[0] * (p[1] - here[1]) - heading[1] * (p[0] - here[0]))
        options.remove(after)
        if not options:
            del following[here]
        heading, here = (after[0] - here[0], after[1] - here[1]), after
        if here == start:
            return ring
        ring.append(here)


def _straightened(ring: Sequence[Corner]) -> tuple[Point, ...]:
    around = zip((ring[-1], *ring[:-1]), ring, (*ring[1:], ring[0]), strict=True)
    return tuple((float(x), float(y)) for (ax, ay), (x, y), (bx, by) in around if (x - ax, y - ay) != (bx - x, by - y))


def _signed_area(ring: Sequence[Point]) -> float:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, (*ring[1:], ring[0]), strict=True)) / 2


def _owner(hole: Sequence[Point], outer: Sequence[tuple[Point, ...]]) -> int:
    """Index of the smallest outer ring around a hole."""
    x, y = min(hole)
    around = [index for index, ring in enumerate(outer) if _contains(ring, x + 0.25, y + 0.25)]
    return min(around, key=lambda index: _signed_area(outer[index]))


def _contains(ring: Sequence[Point], x: float, y: float) -> bool:
    crossed = False
    for (x0, y0), (x1, y1) in zip(ring, (*ring[1:], ring[0]), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            crossed = not crossed
    return crossed


def _nearest(ring: Sequence[Point], hole: Sequence[Point]) -> tuple[int, int]:
    outer, inner = np.asarray(ring), np.asarray(hole)
    distances = ((outer[:, None, :] - inner[None, :, :]) ** 2).sum(axis=2)
    at, into = np.unravel_index(int(distances.argmin()), distances.shape)
    return int(at), int(into)
