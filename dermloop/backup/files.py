"""Files that may change while they are read: taken as they were at one moment, or as far as they were complete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_CHUNK = 1 << 20
_MEMORY = 32 << 20
_TRIES = 3

OWN_COPIES = frozenset({"review.db", "jobs.db", "label_studio.sqlite3"})
"""Databases: they are read through the database, never as files."""

_LEFT_OUT = frozenset({"logs", "served", "demo", "first-bundle", "model-cache", "run.json", "ready.json", ".restoring"})
"""What is made anew, or says what runs now."""

_POINTERS = (
    *("models/champion.json", "models/promotions.jsonl", "datasets/history.jsonl"),
    *("champion.json", "promotions.jsonl"),
)
"""Read before all they point to, and given back after it."""


def listed(root: Path, apart: frozenset[Path] = frozenset()) -> Iterator[str]:
    """Paths of all files below a folder that belong into an archive, pointers first; `apart` are folders of others."""
    pointers = [name for name in _POINTERS if (root / name).is_file()]
    yield from pointers
    for folder, names, files in os.walk(root):
        here = Path(folder)
        relative = here.relative_to(root)
        top = relative == Path()
        names[:] = sorted(n for n in names if not _is_left_out(n, top) and here / n not in apart)
        for name in sorted(files):
            path = (relative / name).as_posix()
            if path not in pointers and not _is_left_out(name, top) and not (here / name).is_symlink():
                yield path


def is_pointer(path: str) -> bool:
    """Whether a file of a home says what the others mean."""
    return path in _POINTERS


def _is_left_out(name: str, top: bool) -> bool:
    database = any(name == own or name.startswith((f"{own}-wal", f"{own}-shm", f"{own}-journal")) for own in OWN_COPIES)
    return database or name.endswith(".partial") or name.startswith(".before-restore") or (top and name in _LEFT_OUT)


@contextmanager
def steady(path: Path) -> Iterator[tuple[IO[bytes], os.stat_result, bool]]:
    """A copy of a file as it was at one moment, its rights, and whether it kept changing while it was read.

    A log of lines ends with its last whole line. Raises FileNotFoundError where the file is gone.
    """
    with tempfile.SpooledTemporaryFile(_MEMORY) as copy:
        for _ in range(_TRIES):
            before = path.stat()
            copy.seek(0)
            copy.truncate()
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    copy.write(chunk)
            after = path.stat()
            changed = (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size)
            if not changed:
                break
        if path.suffix == ".jsonl":
            _cut_to_whole_lines(copy)
        yield copy, after, changed


def _cut_to_whole_lines(copy: IO[bytes]) -> None:
    end = copy.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _CHUNK)
        copy.seek(start)
        found = copy.read(end - start).rfind(b"\n")
        if found >= 0:
            copy.truncate(start + found + 1)
            return
        end = start
    copy.truncate(0)
