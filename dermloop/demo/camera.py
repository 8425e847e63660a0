"""What lies between skin and file: hairs, rulers, gel bubbles, lighting, vignette, white balance, sensor noise."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dermloop.demo import pattern
from dermloop.demo.pattern import Plane, Rng, ramp
from dermloop.demo.pigment import Picture
from dermloop.demo.scene import View

Mask: TypeAlias = NDArray[np.bool_]

_HAIR = {1: (0.5, 0.36, 0.22), 2: (0.34, 0.23, 0.15), 3: (0.2, 0.13, 0.09)}
_DARK_HAIR = (0.07, 0.05, 0.045)


def photographed(rng: Rng, picture: Picture, view: View, skin_type: int, lesions: Mask) -> Picture:
    """The lit skin as a camera would record it, in [0, 1] or a little beyond.

    Neither the dermoscope's black rim nor a paper ruler covers any of the pixels in `lesions`.
    """
    shape = (picture.shape[0], picture.shape[1])
    picture = _hairs(rng, picture, shape, skin_type)
    seen_through = _dermoscope if view is View.DERMOSCOPY else _room
    picture = seen_through(rng, picture, shape, lesions)
    balance = 1 + rng.normal(0, 0.03, 3).astype(np.float32)
    exposure = np.float32(rng.uniform(0.92, 1.06))
    noise = rng.standard_normal(shape, dtype=np.float32)[..., None] * np.float32(rng.uniform(0.004, 0.012))
    return picture * balance * exposure + noise


def _hairs(rng: Rng, picture: Picture, shape: tuple[int, int], skin_type: int) -> Picture:
    if rng.random() > 0.55:
        return picture
    count = int(rng.integers(2, 16 if rng.random() < 0.75 else 34))
    thickness = shape[0] / 384
    cover = 0.85 * pattern.strands(rng, shape, count, (0.5 * thickness, 1.2 * thickness))[..., None]
    colour = np.asarray(_HAIR.get(skin_type, _DARK_HAIR) if rng.random() < 0.6 else _DARK_HAIR, dtype=np.float32)
    return picture * (1 - cover) + colour * cover


def _dermoscope(rng: Rng, picture: Picture, shape: tuple[int, int], lesions: Mask) -> Picture:
    if rng.random() < 0.3:
        picture = _bubbles(rng, picture, shape)
    if rng.random() < 0.35:
        picture = _inked(picture, _scale_marks(rng, shape))
    distance = _distance(rng, shape, 0.03)
    fall = np.float32(rng.uniform(0.05, 0.3)) * np.square(distance)
    picture = picture * (1 - fall)[..., None]
    if rng.random() < 0.4:
        rim = ramp(distance, float(rng.uniform(0.98, 1.1)), 0.95)
        picture = picture if (rim[lesions] < 1).any() else picture * rim[..., None]
    return picture


def _room(rng: Rng, picture: Picture, shape: tuple[int, int], lesions: Mask) -> Picture:
    rows, columns = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slant = rows * np.float32(np.sin(angle)) + columns * np.float32(np.cos(angle))
    curve = 1 + np.float32(rng.uniform(0.05, 0.2)) * slant - np.float32(rng.uniform(0.0, 0.14)) * np.square(slant)
    picture = picture * curve[..., None]
    gloss = ramp(pattern.cloud(rng, shape, 2.6) + 0.5 * slant, 1.9, 3.2) * np.float32(rng.uniform(0.03, 0.2))
    picture = picture + gloss[..., None]
    return _paper_ruler(rng, picture, shape, lesions) if rng.random() < 0.3 else picture


def _bubbles(rng: Rng, picture: Picture, shape: tuple[int, int]) -> Picture:
    sheet = Image.new("L", (shape[1], shape[0]))
    pen = ImageDraw.Draw(sheet)
    for _ in range(int(rng.integers(2, 12))):
        x, y, r = rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), rng.uniform(2, 8) * shape[0] / 384
        pen.ellipse((x - r, y - r, x + r, y + r), outline=90)
        pen.ellipse((x - r / 2, y - r / 2, x - r / 4, y - r / 4), fill=210)
    return picture + 0.6 * (np.asarray(sheet, dtype=np.float32) / 255)[..., None]


def _scale_marks(rng: Rng, shape: tuple[int, int]) -> Plane:
    height, width = shape
    sheet = Image.new("L", (width, height))
    pen = ImageDraw.Draw(sheet)
    step, offset = width / rng.uniform(18, 30), rng.uniform(0.015, 0.06) * height
    for number in range(int(width / step) + 1):
        length = height * (0.045 if number % 5 else 0.08)
        pen.line((number * step, offset, number * step, offset + length), fill=220, width=max(1, width // 300))
    upright = np.asarray(sheet, dtype=np.float32) / 255
    return np.ascontiguousarray(np.rot90(upright, int(rng.integers(4))))


def _inked(picture: Picture, cover: Plane) -> Picture:
    return picture * (1 - 0.8 * cover)[..., None]


def _paper_ruler(rng: Rng, picture: Picture, shape: tuple[int, int], lesions: Mask) -> Picture:
    height, width = shape
    sheet = Image.new("LA", (width, height))
    pen = ImageDraw.Draw(sheet)
    thick = round(height * rng.uniform(0.06, 0.09))
    pen.rectangle((0, 0, width, thick), fill=(236, 255))
    step = width / rng.uniform(20, 36)
    for number in range(int(width / step) + 1):
        length = thick * (0.35 if number % 5 else 0.65)
        pen.line((number * step, 0, number * step, length), fill=(40, 255), width=max(1, width // 380))
    turned = np.rot90(np.asarray(sheet, dtype=np.float32) / 255, int(rng.integers(4)))
    grey, cover = turned[..., :1], turned[..., 1:]
    return picture if (cover[lesions] > 0).any() else picture * (1 - cover) + grey * cover


def _distance(rng: Rng, shape: tuple[int, int], shift: float) -> Plane:
    """Distance from the (slightly shifted) middle, 1 at the middle of an edge."""
    dy, dx = rng.uniform(-shift, shift, 2)
    rows, columns = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j].astype(np.float32)
    distance: Plane = np.hypot(rows + np.float32(dy), columns + np.float32(dx))
    return distance
