"""One conversion as it is asked for, what tells it from others, and what must be known before it begins."""

from __future__ import annotations

import hashlib
import mmap
import re
from dataclasses import dataclass, replace
from pathlib import Path

from converters.dataset import DatasetItem
from converters.formats.contract import Format, ReadSettings, WriteSettings
from converters.naming import Names
from converters.splits import SplitPolicy

_POINTED = re.compile(rb"keypoint|kpt_shape")
_TABLES = frozenset({".json", ".jsonl", ".yaml", ".yml", ".manifest"})


@dataclass(frozen=True, slots=True)
class Request:
    """One conversion: where from, where to, and how. `split` deals out what the source has not split already."""

    source: Path
    target: Path
    reader: Format
    writer: Format
    read: ReadSettings
    write: WriteSettings
    split: SplitPolicy | None = None
    names: Names = Names.ORIGINAL
    allow_loss: bool = False
    read_back: bool = True


def fingerprint(request: Request) -> str:
    """What tells a conversion from others: its settings, and paths, sizes and times of its source's files."""
    facts = (
        str(request.source.resolve()),
        _state(request.source, request.target),
        _state(request.read.images, request.target) if request.read.images else None,
        request.reader.name,
        request.writer.name,
        str(request.read.images),
        request.names.value,
        request.write,
        request.split,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _state(source: Path, target: Path) -> tuple[tuple[str, int, int], ...]:
    """Paths, sizes and times of the files of a source; those of the target and its draft do not count."""
    own = (str(target.absolute()), str(target.absolute().with_name(f".{target.name}.")))
    found = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    kept = [path for path in found if not str(path.absolute()).startswith(own)]
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in kept)


def write_settings(request: Request) -> WriteSettings:
    """How to write; where the target wants the names of all points first, the source is read once for them."""
    written = not request.write.keypoints and request.writer.carries.keypoints
    if not written or request.reader.read is None or not _may_have_points(request.source):
        return request.write
    names: dict[str, None] = {}
    for item in request.reader.read(request.source, request.read):
        for lesion in item.truth.lesions if isinstance(item, DatasetItem) else ():
            names.update(dict.fromkeys(point.name for point in lesion.keypoints))
    return replace(request.write, keypoints=tuple(sorted(names)))


def _may_have_points(source: Path) -> bool:
    """Whether the word for points occurs in the source's tables; spares most conversions a second reading."""
    found = [source] if source.is_file() else [p for p in source.rglob("*") if p.suffix in _TABLES]
    return any(_holds(path) for path in found)


def _holds(path: Path) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _POINTED.search(content) is not None
