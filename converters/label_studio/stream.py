"""The tasks of a Label Studio export one by one, however large the file: memory holds one block, not the export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from converters.errors import AnnotationError

_BLOCK = 1 << 18
_STRUCTURE = np.zeros(256, dtype=np.int8)
for _byte, _step in ((b"{", 1), (b"[", 1), (b"}", -1), (b"]", -1), (b'"', 2)):
    _STRUCTURE[_byte[0]] = _step
_OPEN, _CLOSE = b"{}"
_SPACE = b" \t\r\n"


def read_elements(path: Path, block: int = _BLOCK) -> Iterator[dict[str, Any]]:
    """The objects of a file that holds a JSON array of objects, one object, or one object per line.

    `block` is how many bytes are read at a time. Raises AnnotationError naming file, element and byte where the file is
    no such JSON, ends early or holds something that is no object.
    """
    try:
        with path.open("rb") as stream:
            yield from _elements(stream, str(path), block)
    except OSError as error:
        raise AnnotationError(str(path), str(error), "a readable JSON file", "Name the export's file.") from error


def _elements(stream: IO[bytes], item: str, block: int) -> Iterator[dict[str, Any]]:
    buffer = stream.read(block).removeprefix(b"\xef\xbb\xbf").lstrip()
    in_array = buffer.startswith(b"[")
    buffer = buffer[1:] if in_array else buffer
    offset, number, whole = int(in_array), 0, False
    while True:
        done = 0
        for found, end in () if whole else _guessed(buffer, in_array, number == 0):
            number, done = number + 1, end
            yield found
        for start, end in () if done else _bounds(buffer):
            number += 1
            place = f"{item}, element {number}, byte {offset + start}"
            _require_gap(buffer[done:start], in_array and number > 1, place)
            yield _parsed(buffer[start:end], place)
            done = end
        offset, rest = offset + done, buffer[done:]
        fresh = stream.read(max(block, len(rest)))
        if whole and not fresh:
            _require_end(rest, in_array, f"{item}, after element {number}, byte {offset}")
            return
        buffer, whole = rest + fresh, not fresh


def _guessed(buffer: bytes, in_array: bool, first: bool) -> Iterator[tuple[dict[str, Any], int]]:
    """The objects that a block starts with, each with its end, up to the first place in doubt.

    Guessed as if no text held a brace, which is five times as fast as looking, and proven by parsing: what stands
    between two objects is checked, and no JSON object is the beginning of another one.
    """
    known: bytes | None = None
    done = 0
    for start, end in _brace_pairs(buffer):
        gap = buffer[done:start]
        if gap != known:
            if gap.strip(_SPACE) != (b"," if in_array and not first else b""):
                return
            known, first = (None if first else gap), False
        try:
            found = orjson.loads(buffer[start:end])
        except orjson.JSONDecodeError:
            return
        done = end
        yield found, done


def _brace_pairs(buffer: bytes) -> list[tuple[int, int]]:
    """Start and end of what lies between outermost braces, texts not looked at.

    A brace closes the outermost one where as many were opened before it as it is the closing one, and no more.
    """
    content = np.frombuffer(buffer, dtype=np.uint8)
    opened, closed = np.flatnonzero(content == _OPEN), np.flatnonzero(content == _CLOSE)
    count = min(len(opened), len(closed))
    following = np.append(opened[1:], len(buffer))[:count]
    outermost = np.flatnonzero((opened[:count] < closed[:count]) & (following > closed[:count]))
    starts = opened[np.concatenate(([0], outermost[:-1] + 1))] if outermost.size else outermost
    return _pairs(starts, closed[outermost] + 1)


def _bounds(buffer: bytes) -> list[tuple[int, int]]:
    """Start and end of every complete top-level object in a block that starts between two objects."""
    plain = buffer.replace(b"\\\\", b"  ").replace(b'\\"', b"  ") if b"\\" in buffer else buffer
    codes = _STRUCTURE[np.frombuffer(plain, dtype=np.uint8)]
    places = np.flatnonzero(codes)
    steps = codes[places]
    quotes = steps == 2
    outside = (np.cumsum(quotes) & 1) == 0
    kept = outside & ~quotes
    places, steps = places[kept], steps[kept]
    depth = np.cumsum(steps, dtype=np.int64)
    if (below := np.flatnonzero(depth < 0)).size:
        places, steps, depth = places[: below[0]], steps[: below[0]], depth[: below[0]]
    starts = places[(depth == 1) & (steps == 1)]
    ends = places[(depth == 0) & (steps == -1)] + 1
    return _pairs(starts, ends)


def _pairs(starts: NDArray[np.intp], ends: NDArray[np.intp]) -> list[tuple[int, int]]:
    return list(zip(starts[: len(ends)].tolist(), ends.tolist(), strict=True))


def _require_gap(gap: bytes, after_another: bool, item: str) -> None:
    if gap.strip(_SPACE) != (b"," if after_another else b""):
        expected = "a comma between two tasks" if after_another else "a task object"
        raise AnnotationError(item, gap[:80], expected, "Export the project again.")


def _parsed(content: bytes, item: str) -> dict[str, Any]:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise AnnotationError(item, content[:80], f"JSON ({error})", "Export the project again.") from error
    if not isinstance(found, dict):
        raise AnnotationError(item, content[:80], "a task object", "Export the project again.")
    return found


def _require_end(rest: bytes, in_array: bool, item: str) -> None:
    expected = b"]" if in_array else b""
    if rest.strip(_SPACE) != expected:
        cure = "The file may be cut off: export the project again."
        raise AnnotationError(item, rest[:80], "the end of the array" if in_array else "the end of the file", cure)
