"""A target folder that appears whole or not at all, and that goes on copying where a killed run stopped."""

from __future__ import annotations

import fcntl
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import Image

from converters import images
from converters.annotation import Shape
from converters.errors import DatasetError, ImageError
from converters.formats.contract import Picture, Piece
from converters.geometry import ImageSize
from converters.images import ImageLimits
from converters.raster import shape_to_mask

_MARK = ".conversion"
_OPEN_FILES = 16


@dataclass(slots=True)
class OutputFolder:
    """A draft beside the target; `finish` puts it in the target's place."""

    target: Path
    draft: Path
    leftovers: Path
    _folders: set[Path] = field(default_factory=set)
    _written: set[str] = field(default_factory=set)
    _open: dict[str, IO[bytes]] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        """Append bytes to a file of the draft."""
        if (stream := self._open.get(piece.path)) is not None:
            stream.write(piece.content)
            return
        again = piece.path in self._written
        if not again:
            self._written.add(piece.path)
        stream = self._place(piece.path).open("ab" if again else "wb", buffering=1 << 16 if again else 0)
        stream.write(piece.content)
        if not again:
            stream.close()
            return
        if len(self._open) >= _OPEN_FILES:
            self._open.pop(next(iter(self._open))).close()
        self._open[piece.path] = stream

    def copy(self, picture: Picture) -> None:
        """Put an image into the draft: upright, without metadata, its redactions burned out.

        An image that an earlier, killed run of the same conversion finished is taken over as it is.
        """
        place, finished = self._place(picture.path), self.leftovers / picture.path
        if finished.is_file():
            finished.rename(place)
            return
        if picture.placed.image is None:
            raise ImageError(picture.path, None, "image bytes", "Name the folder of the images.")
        truth = picture.placed.item.truth
        content = exported(picture.placed.image, truth.redactions)
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

    def _place(self, path: str) -> Path:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise DatasetError("path in target", path, "a path inside the target", "Rename the image.")
        place = self.draft / parts
        if place.parent not in self._folders:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(place.parent)
        return place


@contextmanager
def open_output(target: Path, fingerprint: str) -> Iterator[OutputFolder]:
    """A draft for `target`; dropped when an error leaves the block, kept for the next run when the process dies.

    `fingerprint` names source and settings: only a draft of the same conversion is taken over. Raises DatasetError
    where the target holds something already, or another process writes it.
    """
    _require_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.partial")
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


def exported(path: Path, redactions: tuple[Shape, ...]) -> bytes:
    """The bytes of an image as they may leave the house: upright, no metadata, redacted regions black."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(str(path), str(error), "a readable image", "Restore the file.") from error
    clean = images.clean(content, str(path))
    return _burned(clean.content, clean.suffix, redactions) if redactions else clean.content


def _burned(content: bytes, suffix: str, redactions: tuple[Shape, ...]) -> bytes:
    image = images.open_image(content, "image", ImageLimits())
    colour = image.convert("RGB") if image.mode not in ("RGB", "L", "RGBA") else image
    pixels = np.array(colour)
    for shape in redactions:
        pixels[shape_to_mask(shape, ImageSize(*image.size))] = (0, 0, 0, 255) if colour.mode == "RGBA" else 0
    buffer = io.BytesIO()
    kind: dict[str, object] = {"format": "PNG"} if suffix == ".png" else {"format": "JPEG", "quality": 95}
    Image.fromarray(pixels).save(buffer, **kind)  # type: ignore[arg-type]
    return buffer.getvalue()


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
