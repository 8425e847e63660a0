"""Lesion outlines: star-shaped, more or less irregular, with the exact mask and a soft inside-outside scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermloop.demo.pattern import Plane
from dermloop.demo.scene import LesionPlan

_WAVES = {"akiec": 0.12, "bcc": 0.07, "bkl": 0.08, "df": 0.03, "mel": 0.19, "nv": 0.04, "vasc": 0.05}
_SLOPE = {"akiec": 1.1, "bcc": 1.2, "bkl": 1.1, "df": 1.6, "mel": 1.25, "nv": 1.5, "vasc": 1.2}
_MARGIN = 1.25


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the picture that a lesion is drawn in: top and left in pixels, and per-pixel maps of that part.

    `depth` is 1 in the centre, 0 on the outline, negative outside; `along` and `across` run from -1 to 1 over it.
    """

    top: int
    left: int
    depth: Plane
    along: Plane
    across: Plane

    @property
    def inside(self) -> NDArray[np.bool_]:
        """The exact mask of the lesion in this window."""
        return self.depth > 0

    @property
    def rows(self) -> slice:
        """The rows of the picture that the window covers."""
        return slice(self.top, self.top + self.depth.shape[0])

    @property
    def columns(self) -> slice:
        """The columns of the picture that the window covers."""
        return slice(self.left, self.left + self.depth.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.depth.shape
        return height, width


def outline(lesion: LesionPlan, size: int) -> Window:
    """The window of a lesion in a square picture; the outline is the same in every view of the same lesion."""
    rng = np.random.default_rng((*lesion.seed, 7))
    radii = _radii(rng, lesion)
    reach = float(radii.max()) * lesion.radius * _MARGIN
    top, bottom = max(0, int(lesion.y - reach)), min(size, int(lesion.y + reach) + 1)
    left, right = max(0, int(lesion.x - reach)), min(size, int(lesion.x + reach) + 1)
    rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
    dy, dx = rows + np.float32(0.5 - lesion.y), columns + np.float32(0.5 - lesion.x)
    bearing = np.arctan2(dy, dx) - np.float32(lesion.turn)
    position = np.mod(bearing, np.float32(math.tau)) * np.float32(len(radii) / math.tau)
    rim = np.interp(position, np.arange(len(radii) + 1), np.append(radii, radii[0])).astype(np.float32)
    distance = np.hypot(dx, dy) / np.float32(lesion.radius)
    cos, sin = np.float32(math.cos(lesion.turn)), np.float32(math.sin(lesion.turn))
    along, across = (dx * cos + dy * sin) / lesion.radius, (dy * cos - dx * sin) / lesion.radius
    return Window(top, left, 1 - distance / rim, along.astype(np.float32), across.astype(np.float32))


def _radii(rng: np.random.Generator, lesion: LesionPlan) -> NDArray[np.float64]:
    """Distance from centre to rim, relative to the mean radius, at equal angles over a full turn."""
    angles = np.linspace(0, math.tau, 256, endpoint=False)
    ratio = lesion.roundness
    oval = 1 / np.hypot(np.cos(angles) * math.sqrt(ratio), np.sin(angles) / math.sqrt(ratio))
    wobble = np.zeros_like(angles)
    for wave in range(2, 14):
        strength = rng.normal(0, _WAVES[lesion.diagnosis]) / wave ** _SLOPE[lesion.diagnosis] * 2
        wobble += strength * np.cos(wave * angles + rng.uniform(0, math.tau))
    radii: NDArray[np.float64] = oval * np.clip(1 + wobble, 0.55, 1.55)
    return radii
