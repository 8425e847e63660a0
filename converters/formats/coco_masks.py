"""COCO's `segmentation`, both ways: lists of polygons, runs as numbers, runs as a packed string.

Source: the public description of COCO's run-length encoding (cocodataset.org, "mask API").
"""

from __future__ import annotations

from typing import Any

from converters.annotation import Shape
from converters.errors import AnnotationError
from converters.geometry import Ellipse, ImageSize, PixelBox, Polygon, RleMask, RotatedBox
from converters.raster import Mask, corners, shape_to_mask


def encode_segmentation(shape: Shape, size: ImageSize) -> list[list[float]] | dict[str, Any]:
    """Polygons where the shape has no hole, column-wise runs where it has; a box as its four corners."""
    if isinstance(shape, RleMask):
        return {"size": [size.height, size.width], "counts": list(shape.counts)}
    if isinstance(shape, Polygon):
        if shape.holes:
            return encode_segmentation(RleMask.from_array(shape_to_mask(shape, size)), size)
        return [_flat(shape.outline)]
    if isinstance(shape, Ellipse):
        return [_flat(shape.outline().outline)]
    return [_flat(corners(shape))] if isinstance(shape, PixelBox | RotatedBox) else []


def decode_segmentation(found: object, size: ImageSize, item: str) -> Shape | None:
    """The shape of a `segmentation`, or None where it is empty; several polygons become one mask.

    Raises AnnotationError naming `item` for odd coordinates, or runs that do not fill the image.
    """
    try:
        if isinstance(found, dict):
            return _runs(found, size)
        if not found:
            return None
        polygons = [_polygon(flat) for flat in found]  # type: ignore[attr-defined]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        expected = f"polygons or runs of {size.width}×{size.height} pixels ({error})"
        raise AnnotationError(item, str(found)[:80], expected, "Export the masks again.") from error
    if len(polygons) == 1:
        return polygons[0]
    union: Mask = shape_to_mask(polygons[0], size)
    for polygon in polygons[1:]:
        union = union | shape_to_mask(polygon, size)
    return RleMask.from_array(union)


def unpacked(text: str) -> tuple[int, ...]:
    """Runs of a packed string: six bits to a character, differences to the run before last."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"character {character!r}")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("cut off")
    return tuple(counts)


def _runs(found: dict[str, Any], size: ImageSize) -> RleMask:
    height, width = (int(side) for side in found["size"])
    if (width, height) != (size.width, size.height):
        raise ValueError(f"size {width}×{height}")
    counts = found["counts"]
    runs = unpacked(counts) if isinstance(counts, str) else tuple(int(run) for run in counts)
    return RleMask(size, runs)


def _polygon(flat: Any) -> Polygon:
    if len(flat) % 2 or len(flat) < 6:
        raise ValueError(f"{len(flat)} numbers in a polygon")
    numbers = [float(value) for value in flat]
    return Polygon(tuple(zip(numbers[::2], numbers[1::2], strict=True)))


def _flat(points: tuple[tuple[float, float], ...]) -> list[float]:
    return [part for point in points for part in point]
