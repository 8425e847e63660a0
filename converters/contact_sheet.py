"""A dataset at a glance: small pictures with boxes, outlines, masks and points drawn as they were marked."""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from converters.annotation import Finding, Lesion, Shape
from converters.dataset import DatasetItem
from converters.errors import ImageError
from converters.formats.metadata_csv import WHOLE_IMAGE
from converters.geometry import Ellipse, Point, Polygon, RleMask
from converters.images import read_image
from converters.raster import corners, mask_to_polygons, region
from converters.report import counted

TILE, MARGIN, HEAD = 160, 8, 26
"""Side of a picture's place, space around places, and height of the line on top, in pixels of the sheet."""

_CAPTION = 16
_COLOURS = {"high": "#c2185b", "moderate": "#e68a00", "low": "#1e7fc2"}
_OPEN_COLOUR = "#6b7280"
_LEGEND = {**{f"{name} severity": colour for name, colour in _COLOURS.items()}, "diagnosis open": _OPEN_COLOUR}
_DISCLAIMER = "Supports annotation and research. No diagnosis."
_MOST_TILES = 60
_TINT = 0.2
_DOT = 2
Ring = Sequence[Point]


def contact_sheet(items: Sequence[DatasetItem], most: int = _MOST_TILES) -> bytes:
    """PNG bytes of a sheet of small pictures with their regions drawn in the colour of their severity.

    A diagnosis for the whole picture and a negative finding are written on the picture, without a frame. Shows `most`
    images at equal steps through the dataset. Raises ImageError where no image's bytes are at hand.
    """
    there = [item for item in items if Path(item.record.uri).is_file()]
    if not there:
        raise ImageError("contact sheet", "no image bytes", "images at hand", "Name their folder with --images.")
    chosen = [there[index * len(there) // min(most, len(there))] for index in range(min(most, len(there)))]
    columns = max(math.ceil(math.sqrt(len(chosen) * 1.4)), min(5, most))
    rows = math.ceil(len(chosen) / columns)
    wide, high = TILE + MARGIN, TILE + _CAPTION + MARGIN
    sheet = Image.new("RGB", (columns * wide + MARGIN, rows * high + HEAD + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    _head(draw, f"{len(chosen)} of {counted(len(items), 'image')}")
    for number, item in enumerate(chosen):
        left, top = MARGIN + number % columns * wide, HEAD + MARGIN + number // columns * high
        sheet.paste(_tile(item), (left, top))
        draw.text((left, top + TILE + 3), _caption(item, draw), fill="black")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _head(draw: ImageDraw.ImageDraw, said: str) -> None:
    """The line on top: how many are shown, and which colour is which severity."""
    draw.text((MARGIN, MARGIN), said, fill="black")
    place = MARGIN + draw.textlength(said) + 3 * MARGIN
    for name, colour in _LEGEND.items():
        draw.rectangle((place, MARGIN + 2, place + 10, MARGIN + 12), fill=colour)
        draw.text((place + 14, MARGIN), name, fill="black")
        place += 14 + draw.textlength(name) + 2 * MARGIN
    draw.text((place + MARGIN, MARGIN), _DISCLAIMER, fill="#555555")


def _caption(item: DatasetItem, draw: ImageDraw.ImageDraw) -> str:
    """Split and name as far as they fit below a picture, in the letters that the drawn font has."""
    name = item.record.original_name or item.record.image_id[:12]
    split = f"{item.split.value}: " if item.split else ""
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", split + name) if not unicodedata.combining(sign))
    text = plain.encode("ascii", "replace").decode()
    if draw.textlength(text) <= TILE:
        return text
    while draw.textlength(f"{text}...") > TILE:
        text = text[:-1]
    return f"{text}..."


def _tile(item: DatasetItem) -> Image.Image:
    picture = read_image(Path(item.record.uri))
    factor = TILE / max(picture.size)
    small = picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))))
    for lesion in item.truth.lesions:
        _mark(small, lesion, factor)
    draw = ImageDraw.Draw(small)
    if item.truth.finding is not Finding.LESIONS:
        _label(draw, (1, 1), item.truth.finding.value, "#333333")
    for shape in item.truth.redactions:
        for ring in _rings(shape, factor, small.size):
            draw.polygon([*ring], fill="black")
    tile = Image.new("RGB", (TILE, TILE), "#eeeeee")
    tile.paste(small, ((TILE - small.width) // 2, (TILE - small.height) // 2))
    return tile


def _mark(small: Image.Image, lesion: Lesion, factor: float) -> None:
    colour = _COLOURS.get(lesion.severity or "", _OPEN_COLOUR)
    if WHOLE_IMAGE in lesion.attributes and lesion.shape is None:
        _label(ImageDraw.Draw(small), (1, 1), f"{lesion.diagnosis or '?'} (whole picture)", colour)
        return
    shape = region(lesion)
    if isinstance(shape, RleMask):
        tint = Image.blend(small, Image.new("RGB", small.size, colour), _TINT)
        small.paste(tint, mask=_small_mask(shape, small.size))
    draw = ImageDraw.Draw(small)
    for ring in _rings(shape, factor, small.size):
        draw.line([*ring, ring[0]], fill=colour, width=2)
    at = (max(0.0, lesion.box.x_min * factor), max(0.0, lesion.box.y_min * factor - 12))
    _label(draw, at, lesion.diagnosis or "?", colour)
    for point in lesion.keypoints:
        x, y = point.x * factor, point.y * factor
        draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill=colour, outline="white")


def _label(draw: ImageDraw.ImageDraw, at: Point, text: str, colour: str) -> None:
    """White text on a small field of the colour."""
    left, top, right, bottom = draw.textbbox((at[0] + 2, at[1]), text)
    draw.rectangle((left - 2, top - 1, right + 1, bottom + 1), fill=colour)
    draw.text((at[0] + 2, at[1]), text, fill="white")


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
