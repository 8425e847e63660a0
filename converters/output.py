"""A target folder that appears whole or not at all, and that goes on copying where a killed run stopped."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from converters.errors import DatasetError, ImageError
from converters.formats.contract import Picture, Piece
from converters.pixels import exported

_MARK = ".conversion"
_OPEN_FILES = 16
_OPEN_FOLDERS = 64
_REMEMBERED = 64
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


@dataclass(slots=True)
class OutputFolder:
    """A draft beside the target; `finish` puts it in the target's place."""

    target: Path
    draft: Path
    leftovers: Path
    _folders: dict[str, int] = field(default_factory=dict)
    _recent: set[str] = field(default_factory=set)
    _open: dict[str, IO[bytes]] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        """Append bytes to a file of the draft; one that soon gets more stays open from then on."""
        path, content = piece.path, piece.content
        if (stream := self._open.get(path)) is not None:
            stream.write(content)
        elif path in self._recent:
            self._kept_open(path).write(content)
        else:
            if len(self._recent) >= _REMEMBERED:
                self._recent.clear()
            self._recent.add(path)
            self._append(path, content)

    def _append(self, path: str, content: bytes) -> None:
        """Three system calls for a whole file: most targets are ten thousands of small ones."""
        folder, _, name = path.rpartition("/")
        place = self._folders[folder] if folder in self._folders else self._opened(folder)
        try:
            file = os.open(name, _APPEND, 0o666, dir_fd=place)
            try:
                while (written := os.write(file, content)) < len(content):
                    content = content[written:]
            finally:
                os.close(file)
        except OSError as error:
            error.filename = f"{self.draft}/{path}"
            raise

    def _kept_open(self, path: str) -> IO[bytes]:
        stream = Path(self._place(path)).open("ab", buffering=1 << 16)  # noqa: SIM115 (closed in turn)
        if len(self._open) >= _OPEN_FILES:
            self._open.pop(next(iter(self._open))).close()
        self._open[path] = stream
        return stream

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
        while self._folders:
            os.close(self._folders.popitem()[1])

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
            self._opened(folder)
        return f"{self.draft}/{path}"

    def _opened(self, folder: str) -> int:
        """Descriptor of a folder of the draft, made where it is new."""
        parts = PurePosixPath(folder)
        if parts.is_absolute() or ".." in parts.parts:
            raise DatasetError("path in target", folder, "a path inside the target", "Rename the image.")
        place = self.draft / folder
        place.mkdir(parents=True, exist_ok=True)
        if len(self._folders) >= _OPEN_FOLDERS:
            os.close(self._folders.pop(next(iter(self._folders))))
        self._folders[folder] = found = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        return found


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
            with closing(output):
                yield output
        except Exception:
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
