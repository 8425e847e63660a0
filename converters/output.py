"""A target folder that appears whole or not at all, and that goes on copying where a killed run stopped."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from converters.errors import DatasetError, ImageError
from converters.formats.contract import Picture, Piece
from converters.pixels import exported

_MARK = ".conversion"
_OPEN_FILES = 16
_REMEMBERED = 64


@dataclass(slots=True)
class OutputFolder:
    """A draft beside the target; `finish` puts it in the target's place."""

    target: Path
    draft: Path
    leftovers: Path
    _folders: set[str] = field(default_factory=set)
    _recent: dict[str, None] = field(default_factory=dict)
    _open: dict[str, IO[bytes]] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        """Append bytes to a file of the draft."""
        if (stream := self._open.get(piece.path)) is not None:
            stream.write(piece.content)
            return
        if piece.path not in self._recent:
            self._remember(piece.path)
            with open(self._place(piece.path), "ab", buffering=0) as once:  # noqa: PTH123 (ten thousands of files)
                once.write(piece.content)
            return
        stream = open(self._place(piece.path), "ab", buffering=1 << 16)  # noqa: PTH123, SIM115
        stream.write(piece.content)
        if len(self._open) >= _OPEN_FILES:
            self._open.pop(next(iter(self._open))).close()
        self._open[piece.path] = stream

    def _remember(self, path: str) -> None:
        """A file that soon gets more stays open from then on; which files were written long ago is forgotten."""
        self._recent[path] = None
        if len(self._recent) > _REMEMBERED:
            del self._recent[next(iter(self._recent))]

    def copy(self, picture: Picture) -> None:
        """Put an image into the draft: upright, without metadata, its redactions burned out.

        An image that an earlier, killed run of the same conversion finished is taken over as it is.
        """
        place, finished = Path(self._place(picture.path)), self.leftovers / picture.path
        if finished.is_file():
            finished.rename(place)
            return
        if picture.placed.image is None:
            raise ImageError(picture.path, None, "image bytes", "Name the folder of the images.")
        content = exported(picture.placed.image, picture.placed.redactions)
        half = place.with_name(f"{place.name}.half")
        half.write_bytes(content)
        half.rename(place)

    def close(self) -> None:
        """Flush what is still open, so that the draft can be read."""
        while self._open:
            self._open.popitem()[1].close()

    def finish(self) -> None:
        """Put the draft in the target's place."""
        self.close()
        (self.draft / _MARK).unlink()
        if self.target.is_dir():
            self.target.rmdir()
        self.draft.rename(self.target)
        shutil.rmtree(self.leftovers, ignore_errors=True)

    def _place(self, path: str) -> str:
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            parts = PurePosixPath(path)
            if parts.is_absolute() or ".." in parts.parts:
                raise DatasetError("path in target", path, "a path inside the target", "Rename the image.")
            (self.draft / folder).mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)
        return f"{self.draft}/{path}"


@contextmanager
def open_output(target: Path, fingerprint: str) -> Iterator[OutputFolder]:
    """A draft for `target`; dropped when an error leaves the block, kept for the next run when the process dies.

    `fingerprint` names source and settings: only a draft of the same conversion is taken over. Raises DatasetError
    where the target holds something already, or another process writes it.
    """
    _require_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(target)
    leftovers = target.with_name(f".{target.name}.leftover")
    with _locked(target.with_name(f".{target.name}.lock"), target):
        _keep_leftovers(draft, leftovers, fingerprint)
        draft.mkdir()
        (draft / _MARK).write_text(fingerprint)
        output = OutputFolder(target, draft, leftovers)
        try:
            yield output
        except Exception:
            output.close()
            shutil.rmtree(draft, ignore_errors=True)
            shutil.rmtree(leftovers, ignore_errors=True)
            raise


def take_back(target: Path, fingerprint: str) -> None:
    """Makes a finished target the draft of the next run of the conversion `fingerprint`, which goes on from there."""
    draft = _draft(target)
    shutil.rmtree(draft, ignore_errors=True)
    target.rename(draft)
    (draft / _MARK).write_text(fingerprint)


def _draft(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _require_free(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(str(target), "something is there", "a new or empty folder", "Name another folder.")


def _keep_leftovers(draft: Path, leftovers: Path, fingerprint: str) -> None:
    if draft.is_dir():
        mark = draft / _MARK
        if mark.is_file() and mark.read_text() == fingerprint:
            _merge(draft, leftovers)
        shutil.rmtree(draft, ignore_errors=True)
    elif leftovers.is_dir():
        shutil.rmtree(leftovers)


def _merge(draft: Path, leftovers: Path) -> None:
    for path in [path for path in draft.rglob("*") if path.is_file() and path.suffix != ".half"]:
        kept = leftovers / path.relative_to(draft)
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.replace(kept)


@contextmanager
def _locked(path: Path, target: Path) -> Iterator[None]:
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DatasetError(str(target), "another run", "one run at a time", "Wait until it ends.") from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
