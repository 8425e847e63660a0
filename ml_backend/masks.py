"""Outlines of lesions out of a segmentation head: mask coefficients times prototypes, inside the detected box.

Source: the prototypes of YOLACT (Bolya et al. 2019), as ultralytics exports them; Douglas and Peucker (1973).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.geometry import Point, Polygon
from converters.raster import mask_to_polygons
from ml_backend.preprocessing import Floats

_Points: TypeAlias = NDArray[np.float64]
_GRID = 192
_TOLERANCE = 0.75


def outline(coefficients: Floats, prototypes: Floats, box: Floats, size: int) -> Floats | None:
    """The lesion's outline (points, 2) in pixels of the detector's square, or None where the mask is empty.

    `coefficients` (32,) belong to one detection, `prototypes` (32, h, w) to its picture, `box` are its corners in the
    square of side `size`.
    """
    _, height, width = prototypes.shape
    field = np.tensordot(coefficients, prototypes, axes=1).astype(np.float32)
    scale = np.array([width, height, width, height], dtype=np.float32) / size
    x0, y0, x1, y1 = (float(edge) for edge in np.clip(box * scale, 0, [width, height, width, height]))
    if x1 - x0 < 1 or y1 - y0 < 1:
        return None
    factor = _GRID / max(x1 - x0, y1 - y0)
    grid = max(round((x1 - x0) * factor), 1), max(round((y1 - y0) * factor), 1)
    inside = np.asarray(Image.fromarray(field).resize(grid, Image.Resampling.BILINEAR, (x0, y0, x1, y1))) > 0
    parts = mask_to_polygons(inside)
    if not parts:
        return None
    ring = simplified(max(parts, key=Polygon.area).outline, _TOLERANCE)
    points = np.array(ring, dtype=np.float32) * [(x1 - x0) / grid[0], (y1 - y0) / grid[1]] + [x0, y0]
    return np.asarray(points / scale[:2], dtype=np.float32)


def simplified(ring: tuple[Point, ...], tolerance: float) -> tuple[Point, ...]:
    """The ring with every point left out that lies within `tolerance` of the line through its kept neighbours."""
    points = np.array(ring, dtype=np.float64)
    far = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))
    kept = {0, far}
    spans = [(0, far), (far, len(points))]
    while spans:
        first, last = spans.pop()
        between = np.arange(first + 1, last)
        if not between.size:
            continue
        away = _distances(points[between], points[first], points[last % len(points)])
        if away.max() > tolerance:
            middle = int(between[int(away.argmax())])
            kept.add(middle)
            spans += [(first, middle), (middle, last)]
    chosen = tuple((float(x), float(y)) for x, y in points[sorted(kept)])
    return chosen if len(chosen) >= 3 else ring


def _distances(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    along = end - start
    length = float(np.hypot(*along))
    if length == 0:
        return np.asarray(np.hypot(*(points - start).T))
    x, y = (points - start).T
    return np.asarray(np.abs(along[0] * y - along[1] * x) / length)
