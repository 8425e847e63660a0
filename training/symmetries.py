"""A crop in all eight symmetries of the square: a lesion has no upside, so all eight readings are one.

Import only after `networks.keras_library()`.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from keras import ops

_VIEWS = tuple(product((False, True), repeat=3))
"""For each view: mirrored at the diagonal, then upside down, then left to right."""


def spread(pictures: Any) -> Any:
    """The eight views (8 N, S, S, C) of pictures (N, S, S, C), all of one view together."""
    return ops.concatenate([_turned(pictures, *view) for view in _VIEWS], axis=0)


def gathered(maps: Any) -> Any:
    """The mean (N, h, h, C) of the maps (8 N, h, h, C) of eight views, each turned back."""
    parts = ops.reshape(maps, (len(_VIEWS), -1, *maps.shape[1:]))
    back = [_turned_back(parts[number], *view) for number, view in enumerate(_VIEWS)]
    return sum(back[1:], back[0]) / len(back)


def _turned(pictures: Any, diagonal: bool, upside: bool, sideways: bool) -> Any:
    pictures = ops.transpose(pictures, (0, 2, 1, 3)) if diagonal else pictures
    pictures = ops.flip(pictures, 1) if upside else pictures
    return ops.flip(pictures, 2) if sideways else pictures


def _turned_back(maps: Any, diagonal: bool, upside: bool, sideways: bool) -> Any:
    maps = ops.flip(maps, 2) if sideways else maps
    maps = ops.flip(maps, 1) if upside else maps
    return ops.transpose(maps, (0, 2, 1, 3)) if diagonal else maps
