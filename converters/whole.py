"""Files and folders that appear whole or not at all, whoever else writes them and wherever a process is killed."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(target: Path, mark: str | None = None) -> Iterator[Path]:
    """A hidden draft beside `target` to fill; it becomes `target` at the end of the block and goes if the block raises.

    Where somebody else finished the same folder first, theirs stays: `mark` names what a finished one holds, `"."`
    takes any. Raises OSError where anything else is in the place.
    """
    draft = _beside(target)
    draft.mkdir(parents=True)
    try:
        yield draft
        _settle(draft, target, mark)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """The path of a hidden draft beside `target` to write; it replaces `target` at the end of the block.

    The draft goes if the block raises, and what stood at `target` stays. Folders above are made. The draft ends like
    `target`, for libraries that go by a suffix.
    """
    draft = _beside(target)
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield draft
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(target: Path, content: bytes) -> None:
    """Puts `content` at `target` so that a reader finds the old bytes or the new ones, never a part."""
    with whole_file(target) as draft:
        draft.write_bytes(content)


def _beside(target: Path) -> Path:
    return target.with_name(f".{uuid.uuid4().hex}.{target.name}")


def _settle(draft: Path, target: Path, mark: str | None) -> None:
    try:
        draft.rename(target)
    except OSError:
        if mark is None or not (target / mark).exists():
            raise
