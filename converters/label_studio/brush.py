"""Label Studio's brush masks: RGBA values in row order, packed as runs of variable bit length (thi.ng's rle-pack)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from converters.errors import AnnotationError
from converters.geometry import ImageSize

_WORD = 8
_LENGTH_BITS = (3, 4, 8, 16)
_HEADER_BITS = 32 + 5 + 4 * 4


def decode_brush(rle: Sequence[int], size: ImageSize, item: str) -> NDArray[np.bool_]:
    """The mask of shape (height, width) where the packed alpha is above nought.

    Raises AnnotationError naming `item` where the numbers are no mask of that size.
    """
    wanted = size.width * size.height * 4
    try:
        bits = np.unpackbits(np.asarray(rle, dtype=np.uint8))
        text = (bits + ord("0")).tobytes().decode("ascii")
        values = _unpacked(text, bits, wanted)
    except (ValueError, TypeError, OverflowError) as error:
        expected = f"a brush mask of {size.width}×{size.height} pixels ({error})"
        raise AnnotationError(item, f"{len(rle)} bytes", expected, "Draw the region again.") from error
    return values.reshape(size.height, size.width, 4)[:, :, 3] > 0


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """The packed bytes that Label Studio's brush control shows as this mask of shape (height, width)."""
    flat = np.asarray(mask, dtype=bool).ravel()
    edges = np.concatenate(([0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]))
    runs = np.diff(edges) * 4
    bits = "".join(
        (
            f"{flat.size * 4:032b}{_WORD - 1:05b}",
            *(f"{length - 1:04b}" for length in _LENGTH_BITS),
            *(_run_bits(int(run), bool(flat[start])) for run, start in zip(runs, edges, strict=False)),
        )
    )
    packed = np.packbits(np.frombuffer(bits.encode("ascii"), dtype=np.uint8) - ord("0"))
    return [int(value) for value in packed]


def _run_bits(run: int, inside: bool) -> str:
    return "".join(_piece_bits(piece, inside) for piece in _pieces(run))


def _pieces(run: int) -> Iterator[int]:
    longest = 1 << _LENGTH_BITS[-1]
    while run > 0:
        yield min(run, longest)
        run -= longest


def _piece_bits(run: int, inside: bool) -> str:
    index = next(i for i, length in enumerate(_LENGTH_BITS) if run <= 1 << length)
    return f"1{index:02b}{run - 1:0{_LENGTH_BITS[index]}b}{'1' * _WORD if inside else '0' * _WORD}"


def _unpacked(text: str, bits: NDArray[np.uint8], wanted: int) -> NDArray[np.uint8]:
    if len(text) < _HEADER_BITS or int(text[:32], 2) != wanted:
        raise ValueError("another number of pixels")
    word = int(text[32:37], 2) + 1
    lengths = [int(text[at : at + 4], 2) + 1 for at in range(37, _HEADER_BITS, 4)]
    if word != _WORD:
        raise ValueError(f"words of {word} bits")
    values = np.zeros(wanted, dtype=np.uint8)
    at, place = _HEADER_BITS, 0
    while place < wanted:
        width = lengths[int(text[at + 1 : at + 3], 2)]
        run = int(text[at + 3 : at + 3 + width], 2) + 1
        start = at + 3 + width
        end = start + (_WORD if text[at] == "1" else _WORD * run)
        if end > len(text) or place + run > wanted:
            raise ValueError("cut off")
        values[place : place + run] = np.packbits(bits[start:end])
        at, place = end, place + run
    return values
