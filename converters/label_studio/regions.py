"""One Label Studio region, both ways: rectangle, ellipse, polygon, brush or point in percent; shapes in pixels.

Percentages refer to the unturned upright image: `image_rotation` only says how the canvas was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from converters.annotation import Shape
from converters.errors import AnnotationError, GeometryError
from converters.geometry import (
    Ellipse,
    ImageSize,
    PercentBox,
    PixelBox,
    Point,
    Polygon,
    RleMask,
    RotatedBox,
    percent_to_pixel,
    percent_to_rotated,
    pixel_to_percent,
    require_near,
    rotated_to_percent,
)
from converters.label_studio.brush import decode_brush, encode_brush
from converters.raster import shape_to_mask

SHAPES = frozenset({"rectangle", "ellipse", "polygon", "brush", "keypoint"})
_NOISE = 0.01
"""Percent of a side by which rounding may push an edge out of the image."""


def decode_shape(kind: str, value: Mapping[str, Any], size: ImageSize, item: str) -> Shape | Point:
    """The shape of a region's `value` in pixels; a point for `keypoint`.

    Raises AnnotationError naming `item` for missing numbers, GeometryError for a region outside the image.
    """
    try:
        shape = _DECODERS[kind](value, size, item)
    except GeometryError as error:
        if error.item.startswith(item):
            raise
        raise GeometryError(f"{item}, {error.item}", error.value, error.expected, error.cure) from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        expected = f"the numbers of a {kind} ({type(error).__name__} {error})"
        raise AnnotationError(item, str(value)[:200], expected, "Draw the region again.") from error
    return shape


def encode_shape(shape: Shape, size: ImageSize) -> tuple[str, dict[str, Any]]:
    """Label Studio's kind and `value` for a shape; a polygon with holes becomes a brush mask."""
    if isinstance(shape, PixelBox):
        return "rectangle", _percent_value(pixel_to_percent(shape, size))
    if isinstance(shape, RotatedBox):
        return "rectangle", _percent_value(rotated_to_percent(shape, size))
    if isinstance(shape, Ellipse):
        return "ellipse", _ellipse_value(shape, size)
    if isinstance(shape, Polygon) and not shape.holes:
        points = [[100 * x / size.width, 100 * y / size.height] for x, y in shape.outline]
        return "polygon", {"points": points, "closed": True}
    return "brush", {"format": "rle", "rle": encode_brush(shape_to_mask(shape, size))}


def envelope_of(shape: Shape) -> PixelBox:
    """The smallest box around a shape; raises GeometryError for an empty mask."""
    if isinstance(shape, PixelBox):
        return shape
    found = shape.envelope()
    if found is None:
        raise GeometryError("mask", "no pixel", "at least one pixel inside", "Delete the region or paint it.")
    return found


def _rectangle(value: Mapping[str, Any], size: ImageSize, item: str) -> Shape:
    rotation = float(value.get("rotation") or 0)
    x, y, width, height = (float(value[name]) for name in ("x", "y", "width", "height"))
    percent = PercentBox(x, y, width, height, rotation)
    if percent.width < 0 or percent.height < 0:
        raise ValueError("negative side")
    if rotation % 360:
        turned = percent_to_rotated(percent, size)
        require_near(turned.envelope(), size, item)
        return turned
    return _inside(percent_to_pixel(percent, size), size, item)


def _inside(box: PixelBox, size: ImageSize, item: str) -> PixelBox:
    if box.x_min >= 0 and box.y_min >= 0 and box.x_max <= size.width and box.y_max <= size.height:
        return box
    clipped = box.clipped(size)
    slack_x, slack_y = size.width * _NOISE / 100, size.height * _NOISE / 100
    x_off = max(clipped.x_min - box.x_min, box.x_max - clipped.x_max)
    y_off = max(clipped.y_min - box.y_min, box.y_max - clipped.y_max)
    if x_off > slack_x or y_off > slack_y or clipped.width < box.width - 2 * slack_x:
        raise GeometryError(
            item, _edges(box), f"a box inside {size.width}×{size.height} pixels", "Move it inside the image."
        )
    return clipped


def _edges(box: PixelBox) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, for a message."""
    left, top, right, bottom = (round(edge, 2) for edge in box.edges)
    return left, top, right, bottom


def _ellipse(value: Mapping[str, Any], size: ImageSize, item: str) -> Shape:
    x, y, rx, ry = (float(value[name]) for name in ("x", "y", "radiusX", "radiusY"))
    w, h = size.width / 100, size.height / 100
    shape = Ellipse(x * w, y * h, rx * w, ry * h, float(value.get("rotation") or 0))
    require_near(shape.envelope(), size, item)
    return shape


def _polygon(value: Mapping[str, Any], size: ImageSize, item: str) -> Shape:
    points = tuple((float(x) * size.width / 100, float(y) * size.height / 100) for x, y in value["points"])
    shape = Polygon(points[:-1] if len(points) > 3 and points[0] == points[-1] else points)
    require_near(shape.envelope(), size, item)
    return shape


def _brush(value: Mapping[str, Any], size: ImageSize, item: str) -> Shape:
    if value.get("format", "rle") != "rle":
        raise ValueError(f"format {value['format']!r}")
    mask = decode_brush(value["rle"], size, item)
    if not mask.any():
        raise GeometryError(item, "no pixel", "at least one painted pixel", "Delete the region or paint it.")
    return RleMask.from_array(mask)


def _keypoint(value: Mapping[str, Any], size: ImageSize, item: str) -> Point:
    x, y = float(value["x"]) * size.width / 100, float(value["y"]) * size.height / 100
    box = _inside(PixelBox(x, y, x, y), size, item)
    return box.x_min, box.y_min


_DECODERS: Mapping[str, Callable[[Mapping[str, Any], ImageSize, str], Shape | Point]] = {
    "rectangle": _rectangle,
    "ellipse": _ellipse,
    "polygon": _polygon,
    "brush": _brush,
    "keypoint": _keypoint,
}


def _percent_value(box: PercentBox) -> dict[str, Any]:
    return {"x": box.x, "y": box.y, "width": box.width, "height": box.height, "rotation": box.rotation}


def _ellipse_value(shape: Ellipse, size: ImageSize) -> dict[str, Any]:
    return {
        "x": 100 * shape.x_centre / size.width,
        "y": 100 * shape.y_centre / size.height,
        "radiusX": 100 * shape.x_radius / size.width,
        "radiusY": 100 * shape.y_radius / size.height,
        "rotation": shape.angle,
    }
