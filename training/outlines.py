"""How well drawn outlines cover the true ones: Dice and IoU of whole pictures, as pure functions of shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.annotation import Lesion
from converters.geometry import Ellipse, ImageSize, Polygon, RleMask
from converters.raster import shape_to_mask

_SIDE = 640
_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Dice and IoU of the drawn against the true region of one picture, each in [0, 1]."""

    dice: float
    iou: float


def overlap(truths: Sequence[Lesion], drawn: Sequence[Polygon | None], size: ImageSize) -> Overlap | None:
    """The overlap of all drawn outlines with all true ones; None where a lesion's true outline is not known.

    Pictures are compared at 640 pixels of their longer side at most. Nothing drawn on a lesion overlaps by 0.
    """
    if not truths or not all(isinstance(lesion.shape, Polygon | RleMask | Ellipse) for lesion in truths):
        return None
    wanted = _union([lesion.shape for lesion in truths], size)
    found = _union(drawn, size)
    common, total = int((wanted & found).sum()), int(wanted.sum()) + int(found.sum())
    if not total:
        return None
    return Overlap(2 * common / total, common / (total - common))


def _union(shapes: Sequence[object], size: ImageSize) -> _Mask:
    share = min(1.0, _SIDE / max(size.width, size.height))
    small = ImageSize(max(math.ceil(size.width * share), 1), max(math.ceil(size.height * share), 1))
    whole = np.zeros((small.height, small.width), dtype=bool)
    for shape in shapes:
        if isinstance(shape, RleMask):
            picture = Image.fromarray(shape.to_array().astype(np.uint8) * 255)
            whole |= np.asarray(picture.resize((small.width, small.height), Image.Resampling.BOX)) >= 128
        elif isinstance(shape, Polygon | Ellipse):
            outline = shape if isinstance(shape, Polygon) else shape.outline()
            whole |= shape_to_mask(_scaled(outline, small.width / size.width, small.height / size.height), small)
    return whole


def _scaled(shape: Polygon, x_factor: float, y_factor: float) -> Polygon:
    rings = [tuple((x * x_factor, y * y_factor) for x, y in ring) for ring in (shape.outline, *shape.holes)]
    return Polygon(rings[0], tuple(rings[1:]))
