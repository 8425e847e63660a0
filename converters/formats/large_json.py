"""A large JSON object with lists of objects, row by row: the file stays on disk, memory holds where each row begins."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from converters.errors import DatasetError

_BLOCK = 4 << 20
_STEPS = np.zeros(256, dtype=np.int8)
for _byte, _step in ((b"{", 1), (b"[", 1), (b"}", -1), (b"]", -1), (b'"', 2)):
    _STEPS[_byte[0]] = _step
_KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\Z')
_OBJECT = re.compile(rb"\s*\{")
_LONGEST_KEY = 256
_SPACE = b" \t\r\n"
_CURE = "Export the dataset again."
_ROW, _LIST = 3, 2
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LargeObject:
    """A file's JSON object: `plain` is all but the rows of its lists of objects, which are read on demand."""

    path: Path
    plain: Mapping[str, Any]
    _content: mmap.mmap
    _rows: Mapping[str, Places]

    def count(self, key: str) -> int:
        """How many objects a list has."""
        return len(self._rows.get(key, ()))

    def row(self, key: str, number: int) -> dict[str, Any]:
        """One object of a list; raises DatasetError naming file and row where it is broken."""
        start, end = self._rows[key][number].tolist()
        content = self._content[start:end]
        try:
            found = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise self._broken(key, number, start, content, f" ({error})") from error
        if not isinstance(found, dict):
            raise self._broken(key, number, start, content, "")
        return found

    def _broken(self, key: str, number: int, start: int, content: bytes, why: str) -> DatasetError:
        item = f"{self.path}, {key}, row {number + 1}, byte {start}"
        return DatasetError(item, content[:80], f"an intact JSON object{why}", _CURE)

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        """All objects of a list in turn."""
        return (self.row(key, number) for number in range(self.count(key)))


@contextmanager
def open_object(path: Path) -> Iterator[LargeObject]:
    """The JSON object of a file; raises DatasetError naming the file, and the place where there is one.

    Rows are found by counting braces outside of texts; what stands between them is checked, and each is parsed when it
    is asked for.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(path.open("rb"))
            content = stack.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            rows = dict(_lists(content, np.concatenate([*_openings(content, path)], axis=1), path))
            found = LargeObject(path, _plain(content, rows, path), content, rows)
        except (OSError, ValueError, IndexError) as error:
            raise DatasetError(str(path), str(error), "an intact JSON file", _CURE) from error
        yield found


def _openings(content: mmap.mmap, path: Path) -> Iterator[Places]:
    """Place, depth and step of every brace and bracket down to the rows, block by block."""
    start, depth, quoted = 0, 0, 0
    while start < len(content):
        end = min(start + _BLOCK, len(content))
        while end < len(content) and content[end - 1] == ord("\\"):
            end += 1
        block = content[start:end]
        plain = block.replace(b"\\\\", b"  ").replace(b'\\"', b"  ") if b"\\" in block else block
        steps = _STEPS[np.frombuffer(plain, dtype=np.uint8)]
        places = np.flatnonzero(steps)
        steps = steps[places]
        quotes = steps == 2
        parity = (np.cumsum(quotes) + quoted) & 1
        outside = (parity == 0) & ~quotes
        kept, moves = places[outside], steps[outside].astype(np.int64)
        depths = depth + np.cumsum(moves)
        shallow = (depths - np.minimum(moves, 0)) <= _ROW
        yield np.stack([kept[shallow] + start, depths[shallow], moves[shallow]])
        start, depth = end, int(depths[-1]) if len(depths) else depth
        quoted = int(parity[-1]) if len(parity) else quoted
    if depth or quoted:
        value = f"ends at byte {len(content)} inside a {'text' if quoted else 'list or object'}"
        raise DatasetError(str(path), value, "an intact JSON file", f"The file may be cut off. {_CURE}")


def _lists(content: mmap.mmap, marks: Places, path: Path) -> Iterator[tuple[str, Places]]:
    """The lists of objects right below the top, by key, with start and end of each object."""
    places, depths, moves = marks
    for start in places[(depths == _LIST) & (moves == 1)].tolist():
        key = _KEY.search(content[max(0, start - _LONGEST_KEY) : start])
        if content[start : start + 1] != b"[" or key is None or not _OBJECT.match(content, start + 1):
            continue
        first = int(np.searchsorted(places, start))
        last = first + 1 + int(np.flatnonzero(depths[first + 1 :] == _LIST - 1)[0])
        inside = slice(first + 1, last)
        opened = places[inside][(depths[inside] == _ROW) & (moves[inside] == 1)]
        closed = places[inside][(depths[inside] == _ROW - 1) & (moves[inside] == -1)] + 1
        if len(opened):
            rows = np.stack([opened, closed], axis=1)
            name = str(orjson.loads(b'"%b"' % key[1]))
            _require_commas(content, rows, f"{path}, {name}")
            yield name, rows


def _require_commas(content: mmap.mmap, rows: Places, item: str) -> None:
    ends, starts = rows[:-1, 1].tolist(), rows[1:, 0].tolist()
    for number, (end, start) in enumerate(zip(ends, starts, strict=True), 1):
        gap = content[end:start]
        if gap != b"," and gap.strip(_SPACE) != b",":
            raise DatasetError(f"{item}, after row {number}, byte {end}", gap[:80], "a comma between rows", _CURE)


def _plain(content: mmap.mmap, rows: Mapping[str, Places], path: Path) -> Mapping[str, Any]:
    """The object with its lists of objects empty."""
    pieces, done = [], 0
    for found in sorted(rows.values(), key=lambda found: int(found[0, 0])):
        pieces.append(content[done : int(found[0, 0])])
        done = int(found[-1, 1])
    try:
        plain = orjson.loads(b"".join([*pieces, content[done:]]).removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise DatasetError(str(path), str(error), "an intact JSON file", _CURE) from error
    if isinstance(plain, dict) and any(plain.get(key) != [] for key in rows):
        raise DatasetError(str(path), ", ".join(rows), "keys of at most 200 letters, each once", _CURE)
    if not isinstance(plain, dict):
        raise DatasetError(str(path), type(plain).__name__, "a JSON object", "Name another file.")
    return plain
