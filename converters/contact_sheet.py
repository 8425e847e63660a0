"""A dataset at a glance: small pictures with boxes, outlines, masks and points drawn as they were marked."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from converters.annotation import Lesion, Shape
from converters.dataset import DatasetItem
from converters.errors import ImageError
from converters.geometry import Ellipse, Point, Polygon, RleMask
from converters.images import read_image
from converters.raster import corners, mask_to_polygons, region

_TILE = 160
_CAPTION = 14
_COLOURS = {"high": "#c2185b", "moderate": "#e68a00", "low": "#1e7fc2"}
_OPEN_COLOUR = "#6b7280"
_MOST_TILES = 60
_TINT = 0.35
_DOT = 2
Ring = Sequence[Point]


def contact_sheet(items: Sequence[DatasetItem], most: int = _MOST_TILES) -> bytes:
    """PNG bytes of a sheet of small pictures with their regions drawn in the colour of their severity.

    Shows `most` images at equal steps through the dataset. Raises ImageError where no image's bytes are at hand.
    """
    there = [item for item in items if Path(item.record.uri).is_file()]
    if not there:
        raise ImageError("contact sheet", "no image bytes", "images at hand", "Name their folder with --images.")
    chosen = [there[index * len(there) // min(most, len(there))] for index in range(min(most, len(there)))]
    columns = math.ceil(math.sqrt(len(chosen) * 1.4))
    rows = math.ceil(len(chosen) / columns)
    sheet = Image.new("RGB", (columns * _TILE, rows * (_TILE + _CAPTION)), "white")
    for number, item in enumerate(chosen):
        left, top = number % columns * _TILE, number // columns * (_TILE + _CAPTION)
        sheet.paste(_tile(item), (left, top))
        caption = f"{item.split.value if item.split else ''} {item.record.original_name or item.record.image_id[:12]}"
        ImageDraw.Draw(sheet).text((left + 2, top + _TILE), caption.strip()[:26], fill="black")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _tile(item: DatasetItem) -> Image.Image:
    picture = read_image(Path(item.record.uri))
    factor = _TILE / max(picture.size)
    small = picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))))
    for lesion in item.truth.lesions:
        _mark(small, lesion, factor)
    draw = ImageDraw.Draw(small)
    for shape in item.truth.redactions:
        for ring in _rings(shape, factor, small.size):
            draw.polygon([*ring], fill="black")
    tile = Image.new("RGB", (_TILE, _TILE), "#dddddd")
    tile.paste(small, ((_TILE - small.width) // 2, (_TILE - small.height) // 2))
    return tile


def _mark(small: Image.Image, lesion: Lesion, factor: float) -> None:
    colour = _COLOURS.get(lesion.severity or "", _OPEN_COLOUR)
    shape = region(lesion)
    if isinstance(shape, RleMask):
        tint = Image.blend(small, Image.new("RGB", small.size, colour), _TINT)
        small.paste(tint, mask=_small_mask(shape, small.size))
    draw = ImageDraw.Draw(small)
    for ring in _rings(shape, factor, small.size):
        draw.line([*ring, ring[0]], fill=colour, width=2)
    for point in lesion.keypoints:
        x, y = point.x * factor, point.y * factor
        draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill=colour, outline="white")
    at = (lesion.box.x_min * factor + 3, max(0.0, lesion.box.y_min * factor + 1))
    draw.text(at, lesion.diagnosis or "?", fill=colour, stroke_width=1, stroke_fill="white")


def _rings(shape: Shape, factor: float, size: tuple[int, int]) -> Iterator[Ring]:
    """The outlines of a shape, those of its holes too, in pixels of the small picture."""
    if isinstance(shape, RleMask):
        for part in mask_to_polygons(np.asarray(_small_mask(shape, size)) > 0):
            yield from (part.outline, *part.holes)
        return
    outline = shape.outline() if isinstance(shape, Ellipse) else shape
    rings = (outline.outline, *outline.holes) if isinstance(outline, Polygon) else (corners(outline),)
    for ring in rings:
        yield [(x * factor, y * factor) for x, y in ring]


def _small_mask(mask: RleMask, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(mask.to_array()).convert("L").resize(size).point(lambda value: 255 if value > 127 else 0)
