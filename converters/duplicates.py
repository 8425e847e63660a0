"""Near-duplicate pictures by perceptual hash: the same photograph scaled, compressed, turned or mirrored."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from converters.errors import ImageError
from converters.images import opened

_SIDE = 32
_KEPT = 8
_MAX_DISTANCE = 4
Bits = NDArray[np.uint8]


def perceptual_hash(image: Image.Image) -> int:
    """64 bits of the picture's coarse structure: signs of its low cosine frequencies against their median.

    Source: Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), DCT hash.
    """
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=float)
    return _hash(grey)


def near_duplicates(paths: Mapping[str, Path], distance: int = _MAX_DISTANCE) -> tuple[tuple[str, str], ...]:
    """Pairs of image ids whose pictures look alike in one of the eight turns and mirrorings, sorted.

    `distance` is how many of the 64 bits may differ. Raises ImageError for a file that is no image.
    """
    ids = sorted(paths)
    hashes = [_all_turns(paths[image_id]) for image_id in ids]
    plain = np.array([turns[0] for turns in hashes], dtype=np.uint64)
    pairs = set()
    for index, turns in enumerate(hashes):
        for turn in turns:
            close = np.flatnonzero(np.bitwise_count(plain[index + 1 :] ^ np.uint64(turn)) <= distance)
            pairs |= {(ids[index], ids[index + 1 + int(other)]) for other in close}
    return tuple(sorted(pairs))


def _all_turns(path: Path) -> tuple[int, ...]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as stream:
                image = opened(stream)
                image.draft("L", (_SIDE * 4, _SIDE * 4))
                grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=float)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(str(path), str(error), "a readable image", "Restore the file.") from error
    turned: Iterable[NDArray[np.float64]] = (np.rot90(side, turn) for side in (grey, grey.T) for turn in range(4))
    return tuple(_hash(side) for side in turned)


def _hash(grey: NDArray[np.float64]) -> int:
    low = dctn(grey, norm="ortho")[:_KEPT, :_KEPT].ravel()
    low[0] = np.median(low[1:])
    bits: Bits = np.packbits(low > np.median(low))
    return int.from_bytes(bits.tobytes(), "big")
