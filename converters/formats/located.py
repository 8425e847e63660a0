"""Image files behind a format's entries: found, measured upright, named by content; or known by address only."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import UnidentifiedImageError

from converters.dataset import file_digest
from converters.errors import ImageError
from converters.geometry import ImageSize, upright_size
from converters.images import opened

_ORIENTATION = 0x0112
ADDRESS = "at:"
"""Start of the id of an image that is known by its address only."""


def address_id(uri: str) -> str:
    """Id of an image whose bytes are not at hand; never taken for a digest."""
    return ADDRESS + uri


def has_bytes(image_id: str) -> bool:
    """Whether an image id is a digest of bytes that were read."""
    return not image_id.startswith(ADDRESS)


def measured(path: Path, item: str) -> tuple[str, ImageSize]:
    """Digest and upright size of an image file; raises ImageError naming `item` where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as stream:
                image = opened(stream)
                size = ImageSize(*image.size)
                orientation = image.getexif().get(_ORIENTATION, 1)
        return file_digest(path), upright_size(size, orientation if isinstance(orientation, int) else 1)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise ImageError(item, str(path), f"a readable image ({error})", "Restore the file.") from error


def require_size(path: Path, found: ImageSize, stated: ImageSize | None, item: str) -> None:
    """Raises ImageError where a source states another size than the upright image has."""
    if stated is not None and stated != found:
        value = f"{stated.width}×{stated.height}"
        expected = f"{found.width}×{found.height}, the size of {path.name}"
        raise ImageError(f"{item}, image size", value, expected, "Name the image that was annotated.")
