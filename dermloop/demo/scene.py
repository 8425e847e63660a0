"""What a synthetic picture shows, decided before anything is drawn: who, which view, which lesions, where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dermloop.demo.pattern import Rng

_GROUP = 6
_GROUPINGS = ((1, 2, 3), (1, 1, 2, 2), (2, 2, 2), (1, 1, 1, 3), (1, 1, 1, 1, 2))
_DIAGNOSES = {"akiec": 0.13, "bcc": 0.14, "bkl": 0.13, "df": 0.12, "mel": 0.17, "nv": 0.2, "vasc": 0.11}
_ROUNDNESS = {"akiec": 0.72, "bcc": 0.85, "bkl": 0.8, "df": 0.92, "mel": 0.7, "nv": 0.82, "vasc": 0.85}
_SITES = ("anterior torso", "posterior torso", "upper extremity", "lower extremity", "head/neck", "abdomen")
_LESIONS_IN_VIEW = {"dermoscopy": (0.04, 0.9, 0.06, 0.0), "clinical": (0.12, 0.5, 0.25, 0.13)}


class View(StrEnum):
    """How the picture was taken, as it were."""

    DERMOSCOPY = "dermoscopy"
    CLINICAL = "clinical"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Side of the square picture in pixels; a fixed view, skin type, diagnosis or number of lesions where not None."""

    size: int = 384
    view: View | None = None
    skin_type: int | None = None
    diagnosis: str | None = None
    lesions: int | None = None


@dataclass(frozen=True, slots=True)
class Patient:
    """The invented subject of one or more pictures."""

    patient_id: str
    age: float
    sex: str
    skin_type: int


@dataclass(frozen=True, slots=True)
class LesionPlan:
    """One lesion to be drawn: diagnosis, the seed of its looks, centre and mean radius in pixels, turn in radians."""

    lesion_id: str
    diagnosis: str
    seed: tuple[int, ...]
    x: float
    y: float
    radius: float
    roundness: float
    turn: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything a picture shows."""

    patient: Patient
    view: View
    site: str
    lesions: tuple[LesionPlan, ...]


def plan(seed: int, index: int, options: DemoOptions) -> Scene:
    """The scene of picture `index` in the series `seed`; the same numbers always give the same scene."""
    patient, nth = _patient(seed, index, options)
    rng = np.random.default_rng((seed, index, 1))
    view = options.view or (View.DERMOSCOPY if rng.random() < 0.6 else View.CLINICAL)
    shares = _LESIONS_IN_VIEW[view]
    count = int(rng.choice(4, p=shares)) if options.lesions is None else options.lesions
    places = _places(rng, view, count, options.size)
    lesions = tuple(
        _lesion(rng, seed, index - nth, index, number, place, options) for number, place in enumerate(places)
    )
    return Scene(patient, view, str(rng.choice(_SITES)), lesions)


def _patient(seed: int, index: int, options: DemoOptions) -> tuple[Patient, int]:
    group, place = divmod(index, _GROUP)
    sizes = np.random.default_rng((seed, group, 2)).permutation(
        _GROUPINGS[int(np.random.default_rng((seed, group, 3)).integers(len(_GROUPINGS)))]
    )
    starts = np.concatenate(([0], np.cumsum(sizes)))
    number = int(np.searchsorted(starts, place, side="right")) - 1
    first = group * _GROUP + int(starts[number])
    rng = np.random.default_rng((seed, first, 4))
    skin_type = int(rng.integers(1, 7)) if options.skin_type is None else options.skin_type
    age = float(5 * round(float(rng.uniform(20, 88)) / 5))
    sex = str(rng.choice(("female", "male")))
    return Patient(f"synthetic-{seed}-{first:05d}", age, sex, skin_type), index - first


def _lesion(
    rng: Rng, seed: int, first: int, index: int, number: int, place: tuple[float, float, float], options: DemoOptions
) -> LesionPlan:
    seen_again = number == 0 and index != first and rng.random() < 0.5
    source = first if seen_again else index
    looks = np.random.default_rng((seed, source, number, 5))
    drawn = str(looks.choice(tuple(_DIAGNOSES), p=tuple(_DIAGNOSES.values())))
    diagnosis = options.diagnosis or drawn
    roundness = min(1.0, _ROUNDNESS[diagnosis] * float(looks.uniform(0.9, 1.12)))
    turn = float(rng.uniform(0, math.tau))
    identity = f"synthetic-{seed}-{source:05d}-{number}"
    return LesionPlan(identity, diagnosis, (seed, source, number, 6), *place, roundness, turn)


def _places(rng: Rng, view: View, count: int, size: int) -> tuple[tuple[float, float, float], ...]:
    """Centres and radii that keep the lesions apart; fewer than `count` where there is no room left."""
    smallest, largest = ((0.17, 0.33) if count == 1 else (0.11, 0.18)) if view is View.DERMOSCOPY else (0.05, 0.14)
    spread = 0.09 if view is View.DERMOSCOPY and count == 1 else 0.27
    places: list[tuple[float, float, float]] = []
    for _ in range(40):
        if len(places) == count:
            break
        x, y = 0.5 + rng.uniform(-spread, spread, 2)
        radius = float(rng.uniform(smallest, largest))
        if all(math.hypot(x - a, y - b) > 1.6 * (radius + r) for a, b, r in places):
            places.append((float(x), float(y), radius))
    return tuple((x * size, y * size, radius * size) for x, y, radius in places)
