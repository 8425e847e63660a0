"""How each of the seven diagnoses looks: its tissue inside the outline, with the structures that dermoscopy teaches.

The signs drawn here are the textbook ones (pigment network, blue-white veil, arborising vessels, milia-like cysts,
lacunae, white scar-like centre, scale), simplified; see Kittler et al., "Dermatoscopy", and dermoscopedia.org.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dermloop.demo import pattern
from dermloop.demo.outline import Window
from dermloop.demo.pattern import Rng, ramp
from dermloop.demo.pigment import Tissue, Veil
from dermloop.demo.scene import LesionPlan

_RED_CRUST = (0.62, 0.2, 0.12)
_SCALE = (0.95, 0.9, 0.8)
_CYST = (0.97, 0.93, 0.76)
_SCAR = (0.97, 0.9, 0.86)
_BLUE_GREY = (0.36, 0.42, 0.54)
_BLUE_WHITE = (0.56, 0.62, 0.74)
_PEARL = (0.98, 0.88, 0.86)


def tissue(lesion: LesionPlan, window: Window) -> Tissue:
    """What the lesion adds to the skin in its window."""
    rng = np.random.default_rng(lesion.seed)
    return _LOOKS[lesion.diagnosis](rng, window, lesion.radius)


def _nevus(rng: Rng, at: Window, radius: float) -> Tissue:
    body = ramp(at.depth, -0.06, 0.28)
    network = pattern.mesh(rng, at.shape, max(4.0, radius / 8), 0.45)
    depth = np.float32(rng.uniform(0.75, 1.15))
    centre = 0.25 * ramp(at.depth, 0.3, 0.9)
    melanin = depth * body * (0.78 + 0.28 * network + centre + 0.05 * pattern.cloud(rng, at.shape, radius / 2))
    globules = pattern.dots(rng, at.shape, int(rng.integers(0, 30)), (radius / 40, radius / 22))
    melanin += 0.45 * globules * ramp(at.depth, 0.1, 0.3)
    return Tissue(melanin, 0.1 * body, radius * 0.06 * body)


def _melanoma(rng: Rng, at: Window, radius: float) -> Tissue:
    body = ramp(at.depth, -0.04, float(rng.uniform(0.08, 0.18)))
    patches = pattern.clouds(rng, at.shape, radius / 1.3, 3)
    lean = at.along * np.float32(rng.uniform(-0.7, 0.7)) + at.across * np.float32(rng.uniform(-0.7, 0.7))
    network = pattern.mesh(rng, at.shape, max(5.0, radius / 6), 0.5)
    melanin = body * np.clip(1.2 + 0.42 * patches + 0.7 * lean + 0.25 * network, 0.45, 2.9)
    melanin += 0.9 * body * ramp(pattern.clouds(rng, at.shape, radius / 1.8, 2), 0.5, 1.6)
    melanin += pattern.dots(rng, at.shape, 40, (radius / 34, radius / 15)) * ramp(at.depth, -0.06, 0.08)
    blood = body * (0.16 + 0.5 * ramp(pattern.clouds(rng, at.shape, radius / 1.5, 2), 0.5, 1.6))
    inner = ramp(at.depth, 0.08, 0.45)
    veil = 0.72 * inner * ramp(pattern.clouds(rng, at.shape, radius / 1.2, 3) + 0.4 * lean, 0.2, 1.6)
    regression = 0.5 * inner * ramp(pattern.clouds(rng, at.shape, radius / 1.8, 3), 1.0, 2.2)
    height = radius * 0.07 * body * (1 + 0.4 * patches)
    return Tissue(melanin, blood, height, (Veil(veil, _BLUE_GREY), Veil(regression, _BLUE_WHITE)))


def _basal_cell_carcinoma(rng: Rng, at: Window, radius: float) -> Tissue:
    body = ramp(at.depth, -0.06, 0.16)
    rolled = np.exp(-np.square((at.depth - 0.2) / 0.13))
    vessels = pattern.branches(rng, at.shape, int(rng.integers(3, 6)), max(1.0, radius / 26)) * body
    blood = 0.3 * body + 0.95 * vessels + 0.08 * body * pattern.cloud(rng, at.shape, radius / 2)
    nests = pattern.dots(rng, at.shape, int(rng.integers(4, 10)), (radius / 11, radius / 5), radius / 20)
    nests = nests * ramp(at.depth, 0.08, 0.3)
    ulcer = ramp(pattern.clouds(rng, at.shape, radius / 1.8, 2) + at.depth, 1.3, 1.9) * ramp(at.depth, 0.3, 0.5)
    pearl = 0.3 * rolled + 0.22 * body
    veils = (
        Veil(pearl * (1 - 0.9 * vessels), _PEARL),
        Veil(0.75 * nests, _BLUE_GREY),
        Veil(0.8 * ulcer, _RED_CRUST),
    )
    return Tissue(-0.05 * body, blood, radius * (0.14 * rolled + 0.1 * body - 0.1 * ulcer), veils)


def _benign_keratosis(rng: Rng, at: Window, radius: float) -> Tissue:
    body = ramp(at.depth, -0.015, 0.045)
    folds = pattern.mesh(rng, at.shape, max(6.0, radius / 4), 0.55)
    waxy = pattern.clouds(rng, at.shape, radius / 2, 2)
    melanin = body * (0.62 + 0.34 * folds + 0.13 * waxy + np.float32(rng.uniform(-0.1, 0.2)))
    openings = pattern.dots(rng, at.shape, int(rng.integers(16, 30)), (radius / 26, radius / 12), 0.6)
    melanin += 1.1 * openings * ramp(at.depth, 0.06, 0.12)
    cysts = pattern.dots(rng, at.shape, int(rng.integers(14, 30)), (radius / 30, radius / 15), 0.8)
    cysts = cysts * ramp(at.depth, 0.08, 0.16)
    yellow = 0.24 * body * ramp(waxy, -0.6, 1.2)
    height = radius * (0.12 * body - 0.05 * folds * body)
    return Tissue(melanin, 0.05 * body, height, (Veil(yellow, (0.78, 0.62, 0.36)), Veil(0.85 * cysts, _CYST)))


def _dermatofibroma(rng: Rng, at: Window, radius: float) -> Tissue:
    core = ramp(at.depth + 0.06 * pattern.clouds(rng, at.shape, radius / 2.5, 2), 0.26, 0.7)
    rim = ramp(at.depth, -0.12, 0.32) * (1 - 0.85 * core)
    network = pattern.mesh(rng, at.shape, max(4.0, radius / 9), 0.4)
    melanin = rim * (0.38 + 0.26 * network + np.float32(rng.uniform(0, 0.14)))
    streaks = pattern.clouds(rng, at.shape, radius / 5, 2)
    scar = core * np.clip(0.62 + 0.11 * streaks, 0.3, 0.85)
    blood = 0.14 * ramp(at.depth, -0.1, 0.2)
    return Tissue(melanin, blood, radius * 0.12 * ramp(at.depth, 0.0, 0.8), (Veil(scar, _SCAR),))


def _actinic_keratosis(rng: Rng, at: Window, radius: float) -> Tissue:
    ragged = at.depth + 0.07 * pattern.cloud(rng, at.shape, radius / 5)
    body = ramp(ragged, -0.1, 0.3)
    follicles = pattern.dots(rng, at.shape, int(radius), (radius / 36, radius / 18), 1.0)
    blood = body * np.clip(0.56 + 0.2 * pattern.clouds(rng, at.shape, radius / 3) - 0.5 * follicles, 0.05, 1.2)
    flakes = pattern.clouds(rng, at.shape, radius / 4, 4) + 0.55 * pattern.cloud(rng, at.shape, 2.4)
    scale = 0.7 * ramp(flakes, 0.35, 2.1) * ramp(ragged, 0.02, 0.3)
    crust = 0.45 * ramp(pattern.clouds(rng, at.shape, radius / 3, 2), 1.0, 1.9) * ramp(ragged, 0.2, 0.4)
    height = radius * (0.04 * body + 0.05 * scale)
    veils = (Veil(crust, (0.75, 0.55, 0.25)), Veil(scale, _SCALE))
    return Tissue(0.1 * body, blood, height, veils)


def _vascular(rng: Rng, at: Window, radius: float) -> Tissue:
    body = ramp(at.depth, -0.02, 0.1)
    joint, stone = pattern.cells(rng, at.shape, radius / 2.6)
    softness = max(0.8, radius / 22)
    grey = pattern.blurred(stone, softness)
    lacuna = pattern.blurred(ramp(joint, 0.0, 0.3 * radius), softness)
    blood = body * (0.85 + lacuna * (0.5 + 0.75 * grey))
    dark = body * lacuna * ramp(grey, 0.6, 1.0)
    septa = 0.26 * body * (1 - lacuna)
    veils = (Veil(0.4 * dark, (0.33, 0.1, 0.3)), Veil(septa, (0.88, 0.6, 0.6)))
    return Tissue(dark * np.float32(rng.uniform(0.4, 1.0)), blood, radius * 0.1 * body * (0.5 + 0.5 * lacuna), veils)


_LOOKS: dict[str, Callable[[Rng, Window, float], Tissue]] = {
    "akiec": _actinic_keratosis,
    "bcc": _basal_cell_carcinoma,
    "bkl": _benign_keratosis,
    "df": _dermatofibroma,
    "mel": _melanoma,
    "nv": _nevus,
    "vasc": _vascular,
}
