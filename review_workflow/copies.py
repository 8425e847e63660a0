"""Copies of stored images for gold tasks: the same pixels under other bytes, so that no name or digest tells them."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from converters.whole import write_whole

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = len(_PNG) + 25
"""Signature and the first chunk, which has 13 bytes in a frame of 12."""


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """A copied image: the SHA-256 of its bytes and where it lies, relative to the home folder."""

    image_id: str
    uri: str


class ImageCopies:
    """The folder in which images lie, named by the SHA-256 of their bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def copy(self, uri: str, salt: str) -> StoredCopy | None:
        """A copy that differs by a comment holding `salt`; None where the image lies elsewhere or is no JPEG or PNG."""
        path = self._folder / Path(uri).name
        if "://" in uri or not path.is_file():
            return None
        salted = with_comment(path.read_bytes(), hashlib.sha256(salt.encode()).hexdigest())
        if salted is None:
            return None
        image_id = hashlib.sha256(salted).hexdigest()
        target = path.with_name(f"{image_id}{path.suffix}")
        _write(target, salted)
        return StoredCopy(image_id, (Path(uri).parent / target.name).as_posix())


def with_comment(image: bytes, comment: str) -> bytes | None:
    """The bytes of a JPEG or PNG with a comment more and not a pixel changed; None for any other format."""
    text = comment.encode("ascii")
    if image.startswith(_JPEG):
        return image[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + image[2:]
    if image.startswith(_PNG):
        body = b"tEXtComment\x00" + text
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        return image[:_PNG_HEADER] + chunk + image[_PNG_HEADER:]
    return None


def _write(target: Path, content: bytes) -> None:
    if not target.is_file():
        write_whole(target, content)
