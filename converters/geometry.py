"""Shapes with their units as types, and the only conversions between them.

Pixel shapes count from the top-left corner of the *upright* image (EXIF turn applied), x to the right and y down.
A pixel covers the unit square, so a box over the whole of a 640×480 image is `PixelBox(0, 0, 640, 480)`.
Angles are degrees, clockwise on the screen. Percent shapes are Label Studio's: 0 to 100 of the image's sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from converters.errors import GeometryError

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Width and height of an upright image, in pixels."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise GeometryError("image size", (self.width, self.height), "at least 1×1 pixels", "Check the image file.")


@dataclass(frozen=True, slots=True)
class PixelBox:
    """An axis-aligned box in pixels: left, top, right, bottom; right and bottom are exclusive edges."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    def __post_init__(self) -> None:
        finite = math.isfinite(self.x_min + self.y_min + self.x_max + self.y_max)
        if not finite or self.x_max < self.x_min or self.y_max < self.y_min:
            edges = (self.x_min, self.y_min, self.x_max, self.y_max)
            raise GeometryError("box", edges, "finite edges with left ≤ right and top ≤ bottom", "Redraw the box.")

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in pixels."""
        return self.x_min, self.y_min, self.x_max, self.y_max

    @property
    def width(self) -> float:
        """Horizontal extent in pixels."""
        return self.x_max - self.x_min

    @property
    def height(self) -> float:
        """Vertical extent in pixels."""
        return self.y_max - self.y_min

    @property
    def area(self) -> float:
        """Covered area in square pixels."""
        return self.width * self.height

    @property
    def centre(self) -> Point:
        """Middle of the box in pixels."""
        return (self.x_min + self.x_max) / 2, (self.y_min + self.y_max) / 2

    def intersection(self, other: PixelBox) -> float:
        """Area in square pixels that both boxes cover."""
        width = min(self.x_max, other.x_max) - max(self.x_min, other.x_min)
        height = min(self.y_max, other.y_max) - max(self.y_min, other.y_min)
        return max(width, 0.0) * max(height, 0.0)

    def iou(self, other: PixelBox) -> float:
        """Intersection over union in [0, 1]; 0 where both boxes are empty."""
        shared = self.intersection(other)
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0

    def clipped(self, size: ImageSize) -> PixelBox:
        """The part of the box that lies inside an image of the given size."""
        if self.x_min >= 0 and self.y_min >= 0 and self.x_max <= size.width and self.y_max <= size.height:
            return self
        return PixelBox(
            min(max(self.x_min, 0.0), size.width),
            min(max(self.y_min, 0.0), size.height),
            min(max(self.x_max, 0.0), size.width),
            min(max(self.y_max, 0.0), size.height),
        )

    def padded(self, share: float) -> PixelBox:
        """The box grown on each side by `share` of its own width and height."""
        dx, dy = self.width * share, self.height * share
        return PixelBox(self.x_min - dx, self.y_min - dy, self.x_max + dx, self.y_max + dy)

    def scaled(self, x_factor: float, y_factor: float) -> PixelBox:
        """The box in an image whose sides are multiplied by the two factors."""
        return PixelBox(self.x_min * x_factor, self.y_min * y_factor, self.x_max * x_factor, self.y_max * y_factor)

    def moved(self, dx: float, dy: float) -> PixelBox:
        """The box shifted by so many pixels."""
        return PixelBox(self.x_min + dx, self.y_min + dy, self.x_max + dx, self.y_max + dy)


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """A box in pixels turned about its centre by `angle` degrees clockwise."""

    x_centre: float
    y_centre: float
    width: float
    height: float
    angle: float = 0.0

    def __post_init__(self) -> None:
        _require_extent("turned box", (self.x_centre, self.y_centre, self.width, self.height, self.angle))

    def corners(self) -> tuple[Point, Point, Point, Point]:
        """The four corners in pixels: top-left, top-right, bottom-right, bottom-left before the turn."""
        half_w, half_h = self.width / 2, self.height / 2
        offsets = ((-half_w, -half_h), (half_w, -half_h), (half_w, half_h), (-half_w, half_h))
        a, b, c, d = (_turned(offset, self.angle) for offset in offsets)
        return tuple((x + self.x_centre, y + self.y_centre) for x, y in (a, b, c, d))  # type: ignore[return-value]

    def envelope(self) -> PixelBox:
        """The smallest axis-aligned box around the turned one."""
        return envelope(self.corners())


@dataclass(frozen=True, slots=True)
class PercentBox:
    """Label Studio's rectangle: top-left corner and sides in percent of the image, turned about that corner.

    `x` and `width` are percent of the image's width, `y` and `height` of its height; `rotation` is degrees clockwise.
    """

    x: float
    y: float
    width: float
    height: float
    rotation: float = 0.0


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An ellipse in pixels: centre, half-axes and the clockwise turn of the first half-axis in degrees."""

    x_centre: float
    y_centre: float
    x_radius: float
    y_radius: float
    angle: float = 0.0

    def __post_init__(self) -> None:
        _require_extent("ellipse", (self.x_centre, self.y_centre, self.x_radius, self.y_radius, self.angle))

    def envelope(self) -> PixelBox:
        """The smallest axis-aligned box around the ellipse."""
        angle = math.radians(self.angle)
        dx = math.hypot(self.x_radius * math.cos(angle), self.y_radius * math.sin(angle))
        dy = math.hypot(self.x_radius * math.sin(angle), self.y_radius * math.cos(angle))
        return PixelBox(self.x_centre - dx, self.y_centre - dy, self.x_centre + dx, self.y_centre + dy)

    def outline(self, points: int = 72) -> Polygon:
        """A polygon of the same area with so many corners, on the ellipse's own axes."""
        stretch = math.sqrt(2 * math.pi / (points * math.sin(2 * math.pi / points)))
        steps = (2 * math.pi * step / points for step in range(points))
        offsets = ((stretch * self.x_radius * math.cos(t), stretch * self.y_radius * math.sin(t)) for t in steps)
        turned = (_turned(offset, self.angle) for offset in offsets)
        return Polygon(tuple((x + self.x_centre, y + self.y_centre) for x, y in turned))


@dataclass(frozen=True, slots=True)
class Polygon:
    """A filled outline in pixels with holes; rings are open (the last point is not the first again)."""

    outline: tuple[Point, ...]
    holes: tuple[tuple[Point, ...], ...] = ()

    def __post_init__(self) -> None:
        for ring in (self.outline, *self.holes):
            if len(ring) < 3:
                raise GeometryError("polygon", ring, "at least three points in each ring", "Redraw the polygon.")
            if not all(math.isfinite(x) and math.isfinite(y) for x, y in ring):
                raise GeometryError("polygon", ring, "finite coordinates", "Redraw the polygon.")

    def envelope(self) -> PixelBox:
        """The smallest axis-aligned box around the outline."""
        return envelope(self.outline)

    def area(self) -> float:
        """Area in square pixels: the outline's less the holes'."""
        return _ring_area(self.outline) - sum(_ring_area(hole) for hole in self.holes)


@dataclass(frozen=True, slots=True)
class RleMask:
    """A binary mask as run lengths in column-major order, starting with background (COCO's uncompressed RLE)."""

    size: ImageSize
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        covered = sum(self.counts)
        if covered != self.size.width * self.size.height or any(run < 0 for run in self.counts):
            raise GeometryError(
                "mask runs",
                covered,
                f"non-negative runs that add up to {self.size.width}×{self.size.height} pixels",
                "Export the mask again.",
            )

    @classmethod
    def from_array(cls, mask: NDArray[np.bool_]) -> RleMask:
        """The mask of a boolean array of shape (height, width)."""
        height, width = mask.shape
        flat = np.asarray(mask, dtype=bool).ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
        if flat.size and flat[0]:
            runs = [0, *runs]
        return cls(ImageSize(width, height), tuple(runs))

    def to_array(self) -> NDArray[np.bool_]:
        """A boolean array of shape (height, width)."""
        values = np.arange(len(self.counts)) % 2 == 1
        flat = np.repeat(values, self.counts)
        return flat.reshape((self.size.height, self.size.width), order="F")

    def area(self) -> int:
        """Number of pixels inside the mask."""
        return sum(self.counts[1::2])

    def envelope(self) -> PixelBox | None:
        """The smallest box around the mask, or None where the mask is empty."""
        rows, columns = np.nonzero(self.to_array())
        if rows.size == 0:
            return None
        return PixelBox(float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))


@dataclass(frozen=True, slots=True)
class KeyPoint:
    """A named point in pixels; `visible` is false for a point marked but hidden."""

    x: float
    y: float
    name: str
    visible: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.x) and math.isfinite(self.y)):
            raise GeometryError("point", (self.x, self.y), "finite coordinates", "Set the point again.")


def pixel_to_percent(box: PixelBox, size: ImageSize) -> PercentBox:
    """Label Studio's rectangle for an axis-aligned pixel box."""
    return PercentBox(
        100 * box.x_min / size.width,
        100 * box.y_min / size.height,
        100 * box.width / size.width,
        100 * box.height / size.height,
    )


def percent_to_rotated(box: PercentBox, size: ImageSize) -> RotatedBox:
    """The pixel box, turned about its centre, that covers what Label Studio draws turned about the top-left corner."""
    width, height = box.width * size.width / 100, box.height * size.height / 100
    dx, dy = _turned((width / 2, height / 2), box.rotation)
    left, top = box.x * size.width / 100, box.y * size.height / 100
    return RotatedBox(left + dx, top + dy, width, height, box.rotation)


def rotated_to_percent(box: RotatedBox, size: ImageSize) -> PercentBox:
    """Label Studio's rectangle that covers the same turned pixel box."""
    left, top = box.corners()[0]
    return PercentBox(
        100 * left / size.width,
        100 * top / size.height,
        100 * box.width / size.width,
        100 * box.height / size.height,
        box.angle,
    )


def percent_to_pixel(box: PercentBox, size: ImageSize) -> PixelBox:
    """The smallest axis-aligned pixel box around Label Studio's rectangle, its rotation taken into account."""
    if box.rotation % 360 == 0:
        left, top = box.x * size.width / 100, box.y * size.height / 100
        return PixelBox(left, top, left + box.width * size.width / 100, top + box.height * size.height / 100)
    return percent_to_rotated(box, size).envelope()


def require_near(box: PixelBox, size: ImageSize, item: str) -> None:
    """Raises GeometryError naming `item` for a box that misses the image or sticks out by more than its sides."""
    touches = box.x_max > 0 and box.y_max > 0 and box.x_min < size.width and box.y_min < size.height
    near = box.x_min >= -size.width and box.y_min >= -size.height
    if touches and near and box.x_max <= 2 * size.width and box.y_max <= 2 * size.height:
        return
    edges = tuple(float(f"{edge:.6g}") for edge in box.edges)
    raise GeometryError(item, edges, f"a region on {size.width}×{size.height} pixels", "Move it into the image.")


def envelope(points: tuple[Point, ...]) -> PixelBox:
    """The smallest axis-aligned box around the points."""
    xs, ys = zip(*points, strict=True)
    return PixelBox(min(xs), min(ys), max(xs), max(ys))


def upright_size(size: ImageSize, orientation: int) -> ImageSize:
    """Size after the turn that an EXIF orientation (1 to 8) asks for."""
    return ImageSize(size.height, size.width) if orientation in (5, 6, 7, 8) else size


def upright_box(box: PixelBox, stored: ImageSize, orientation: int) -> PixelBox:
    """A box given in the stored pixel grid, in the upright image that EXIF `orientation` (1 to 8) makes of it.

    Raises GeometryError for an orientation outside 1 to 8. Source: EXIF 2.32, tag 0x0112.
    """
    w, h = float(stored.width), float(stored.height)
    x0, y0, x1, y1 = box.x_min, box.y_min, box.x_max, box.y_max
    turned = {
        1: (x0, y0, x1, y1),
        2: (w - x1, y0, w - x0, y1),
        3: (w - x1, h - y1, w - x0, h - y0),
        4: (x0, h - y1, x1, h - y0),
        5: (y0, x0, y1, x1),
        6: (h - y1, x0, h - y0, x1),
        7: (h - y1, w - x1, h - y0, w - x0),
        8: (y0, w - x1, y1, w - x0),
    }
    if orientation not in turned:
        raise GeometryError("EXIF orientation", orientation, "a number from 1 to 8", "Re-save the image.")
    return PixelBox(*turned[orientation])


def without_negative_zero(box: PixelBox) -> PixelBox:
    """The same box with -0.0 written as 0.0, so that equal boxes serialise to equal bytes."""
    return replace(box, x_min=box.x_min + 0.0, y_min=box.y_min + 0.0, x_max=box.x_max + 0.0, y_max=box.y_max + 0.0)


def _require_extent(what: str, values: tuple[float, float, float, float, float]) -> None:
    if not all(map(math.isfinite, values)) or values[2] < 0 or values[3] < 0:
        raise GeometryError(what, values, "finite numbers and sides of at least 0", "Redraw the region.")


def _turned(offset: Point, degrees: float) -> Point:
    angle = math.radians(degrees)
    x, y = offset
    return x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)


def _ring_area(ring: tuple[Point, ...]) -> float:
    following = (*ring[1:], ring[0])
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, following, strict=True))) / 2
