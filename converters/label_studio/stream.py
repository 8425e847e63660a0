"""The tasks of a Label Studio export one by one, however large the file: memory holds one block, not the export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from converters.errors import AnnotationError

_BLOCK = 16 << 20
_STRUCTURE = np.zeros(256, dtype=np.int8)
for _byte, _step in ((b"{", 1), (b"[", 1), (b"}", -1), (b"]", -1), (b'"', 2)):
    _STRUCTURE[_byte[0]] = _step
_SPACE = b" \t\r\n"


def read_elements(path: Path, block: int = _BLOCK) -> Iterator[dict[str, Any]]:
    """The objects of a file that holds a JSON array of objects, one object, or one object per line.

    `block` is how many bytes are read at a time. Raises AnnotationError naming file, element and byte where the file is
    no such JSON, ends early or holds something that is no object.
    """
    try:
        with path.open("rb") as stream:
            yield from _whole(path, block) or _elements(stream, str(path), block)
    except OSError as error:
        raise AnnotationError(str(path), str(error), "a readable JSON file", "Name the export's file.") from error


def _whole(path: Path, block: int) -> list[dict[str, Any]]:
    """All objects of a small file, parsed in one go; none where it is large, broken or no array of objects."""
    if path.stat().st_size > block:
        return []
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return []
    return found if isinstance(found, list) and all(isinstance(task, dict) for task in found) else []


def _elements(stream: IO[bytes], item: str, block: int) -> Iterator[dict[str, Any]]:
    buffer = stream.read(block).removeprefix(b"\xef\xbb\xbf").lstrip()
    in_array = buffer.startswith(b"[")
    buffer = buffer[1:] if in_array else buffer
    offset, number = int(in_array), 0
    while True:
        done = 0
        for start, end in _bounds(buffer):
            number += 1
            place = f"{item}, element {number}, byte {offset + start}"
            _require_gap(buffer[done:start], in_array and number > 1, place)
            yield _parsed(buffer[start:end], place)
            done = end
        offset, rest = offset + done, buffer[done:]
        fresh = stream.read(max(block, len(rest)))
        if not fresh:
            _require_end(rest, in_array, f"{item}, after element {number}, byte {offset}")
            return
        buffer = rest + fresh


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
