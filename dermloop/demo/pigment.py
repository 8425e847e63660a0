"""Colour from what skin is made of: melanin and blood absorb, veils cover, height catches the light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dermloop.demo.pattern import Plane

Colour: TypeAlias = tuple[float, float, float]
Picture: TypeAlias = NDArray[np.floating[Any]]

MELANIN_ABSORPTION: Colour = (0.55, 0.82, 1.0)
BLOOD_ABSORPTION: Colour = (0.12, 0.85, 0.68)
_WHITE: Colour = (0.985, 0.955, 0.93)
SKIN_MELANIN = {1: 0.08, 2: 0.2, 3: 0.42, 4: 0.75, 5: 1.2, 6: 1.7}
"""Melanin of the six Fitzpatrick types, in the units of the absorption above; chosen by eye."""


@dataclass(frozen=True, slots=True)
class Veil:
    """Something on top of the skin: how much it covers, 0 to 1 for each pixel, and its colour in [0, 1]."""

    cover: Plane
    colour: Colour


@dataclass(frozen=True, slots=True)
class Tissue:
    """What a stretch of skin holds, all of shape (height, width): melanin, blood, height in pixels, and veils."""

    melanin: Plane
    blood: Plane
    height: Plane
    veils: tuple[Veil, ...] = ()


def colours(melanin: Plane, blood: Plane) -> Picture:
    """Red, green and blue in [0, 1], shape (height, width, 3), by exponential absorption (Beer and Lambert)."""
    channels = zip(_WHITE, MELANIN_ABSORPTION, BLOOD_ABSORPTION, strict=True)
    planes = [
        np.float32(white) * np.exp(-(melanin * np.float32(m) + blood * np.float32(b))) for white, m, b in channels
    ]
    return np.stack(planes, axis=-1)


def covered(picture: Picture, veil: Veil, skin_type: int) -> Picture:
    """The picture under a veil; on darker skin the same scale or scar reflects less light."""
    dimming = np.float32(1 - 0.07 * (skin_type - 1))
    cover = veil.cover[..., None]
    seen: Picture = picture * (1 - cover) + _row(veil.colour) * dimming * cover
    return seen


def shading(height: Plane, light: tuple[float, float], strength: float) -> Plane:
    """Brightness factor of a relief lit from the direction `light` (unit vector x, y); 1 where it is flat."""
    down, right = np.gradient(height)
    slope = -(right * np.float32(light[0]) + down * np.float32(light[1]))
    brightness: Plane = np.clip(1 + np.float32(strength) * slope, 0.55, 1.5)
    return brightness


def _row(colour: Colour) -> NDArray[np.float32]:
    return np.asarray(colour, dtype=np.float32)
