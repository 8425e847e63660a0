"""Grey patterns that skin and lesions are made of: clouds, meshes, cells, dots and branching lines."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Plane: TypeAlias = NDArray[np.floating[Any]]
Rng: TypeAlias = np.random.Generator


def cloud(rng: Rng, shape: tuple[int, int], grain: float) -> Plane:
    """Smooth noise of shape (height, width) around 0 with a spread near 1; `grain` is the size of a blob in pixels."""
    height, width = shape
    cells = (max(2, round(height / grain) + 1), max(2, round(width / grain) + 1))
    grid = rng.standard_normal(cells, dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def clouds(rng: Rng, shape: tuple[int, int], grain: float, octaves: int = 3) -> Plane:
    """Noise with finer and fainter detail in each octave; shape (height, width), spread near 1."""
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        total += cloud(rng, shape, max(grain / 2**octave, 1.5)) * np.float32(0.6**octave)
    return total


def mesh(rng: Rng, shape: tuple[int, int], grain: float, line: float = 0.3) -> Plane:
    """A net of lines in [0, 1] whose holes are about `grain` pixels wide; `line` is the share a line takes."""
    level = cloud(rng, shape, grain)
    lines: Plane = np.exp(-np.square(level / np.float32(line)))
    return lines


def cells(rng: Rng, shape: tuple[int, int], grain: float) -> tuple[Plane, Plane]:
    """Cobblestones: distance to the joint between stones (0 at the joint, pixels), and a random grey for each stone."""
    height, width = shape
    count = max(3, round(height * width / grain**2))
    stones = rng.uniform((0, 0), shape, (count, 2)).astype(np.float32)
    greys = rng.uniform(0, 1, count).astype(np.float32)
    rows, columns = np.mgrid[0:height:2, 0:width:2].astype(np.float32)
    squared = np.square(rows[..., None] - stones[:, 0]) + np.square(columns[..., None] - stones[:, 1])
    nearest = np.sqrt(np.partition(squared, 1, axis=-1)[..., :2])
    owner = greys[np.argmin(squared, axis=-1)]
    return _enlarged(nearest[..., 1] - nearest[..., 0], shape), _enlarged(owner, shape)


def dots(rng: Rng, shape: tuple[int, int], count: int, radius: tuple[float, float], blur: float = 0.7) -> Plane:
    """Round spots in [0, 1] at random places; radii in pixels between the two given."""
    height, width = shape
    sheet = Image.new("L", (width, height))
    pen = ImageDraw.Draw(sheet)
    for _ in range(count):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(*radius)
        squeeze = rng.uniform(0.7, 1.0)
        pen.ellipse((x - r, y - r * squeeze, x + r, y + r * squeeze), fill=int(rng.uniform(150, 255)))
    return _plane(sheet.filter(ImageFilter.GaussianBlur(blur)))


def branches(rng: Rng, shape: tuple[int, int], trunks: int, thickness: float) -> Plane:
    """Branching lines in [0, 1] that enter from the rim and thin out, as arborising vessels do; thickness in pixels."""
    height, width = shape
    sheet = Image.new("L", (width * 2, height * 2))
    pen = ImageDraw.Draw(sheet)
    reach = max(height, width)
    for _ in range(trunks):
        turn = rng.uniform(0, math.tau)
        start = (width + 0.75 * width * math.cos(turn), height + 0.75 * height * math.sin(turn))
        heading = math.atan2(height - start[1], width - start[0]) + rng.normal(0, 0.35)
        _branch(rng, pen, start, heading, reach * 0.85, thickness * 2)
    return _plane(sheet.resize((width, height), Image.Resampling.BILINEAR))


def strands(rng: Rng, shape: tuple[int, int], count: int, thickness: tuple[float, float]) -> Plane:
    """Bent lines in [0, 1] across the picture, as hairs lie on skin; thickness in pixels between the two given."""
    height, width = shape
    sheet = Image.new("L", (width * 2, height * 2))
    pen = ImageDraw.Draw(sheet)
    lie = rng.uniform(0, math.tau)
    for _ in range(count):
        heading, bend = lie + rng.normal(0, 0.45), rng.normal(0, 0.9)
        x, y = rng.uniform(-0.1, 2.0) * width, rng.uniform(-0.1, 2.0) * height
        length, points = rng.uniform(0.25, 0.8) * max(shape) * 2, []
        for step in np.linspace(0, 1, 14):
            points.append((x, y))
            x += length / 14 * math.cos(heading + bend * step)
            y += length / 14 * math.sin(heading + bend * step)
        pen.line(
            points, fill=int(rng.uniform(140, 255)), width=max(1, round(2 * rng.uniform(*thickness))), joint="curve"
        )
    return _plane(sheet.resize((width, height), Image.Resampling.BILINEAR))


def blurred(values: Plane, radius: float) -> Plane:
    """A plane of values in [0, 1] under a Gaussian blur of the given radius in pixels."""
    sheet = Image.fromarray((values * np.float32(255)).astype(np.uint8))
    return _plane(sheet.filter(ImageFilter.GaussianBlur(radius)))


def ramp(values: Plane, low: float, high: float) -> Plane:
    """0 below `low`, 1 above `high`, a smooth step between; the two may be swapped to turn it round."""
    share: Plane = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return share * share * (3 - 2 * share)


def _branch(
    rng: Rng, pen: ImageDraw.ImageDraw, start: tuple[float, float], heading: float, length: float, thickness: float
) -> None:
    x, y = start
    for _ in range(7):
        heading += rng.normal(0, 0.22)
        ahead = (x + length / 7 * math.cos(heading), y + length / 7 * math.sin(heading))
        pen.line((x, y, *ahead), fill=255, width=max(1, round(thickness)))
        x, y = ahead
        thickness *= 0.93
        if thickness > 1.4 and rng.random() < 0.42:
            _branch(
                rng, pen, ahead, heading + rng.choice((-1, 1)) * rng.uniform(0.4, 0.9), length * 0.5, thickness * 0.7
            )


def _plane(sheet: Image.Image) -> Plane:
    return np.asarray(sheet, dtype=np.float32) / np.float32(255)


def _enlarged(plane: Plane, shape: tuple[int, int]) -> Plane:
    return np.asarray(Image.fromarray(plane).resize(shape[::-1], Image.Resampling.BILINEAR))
