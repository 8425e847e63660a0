"""Images at the border of the house: opened within limits, turned upright, stripped of EXIF, named by content."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from converters.errors import ImageError
from converters.geometry import ImageSize
from converters.image_metadata import without_metadata

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_KINDS: dict[bytes, type[ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"BM": BmpImageFile,
}
_JPEG_QUALITY = 95
ORIENTATION = 0x0112
"""EXIF's tag for it."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How a picture is turned upright, by its EXIF orientation; 1 and unknown ones leave it."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Largest accepted file in bytes and largest accepted image in pixels."""

    max_bytes: int = 50_000_000
    max_pixels: int = 100_000_000


@dataclass(frozen=True, slots=True)
class CleanImage:
    """An upright image without metadata: its bytes, the SHA-256 that names it, its suffix and its size."""

    content: bytes
    image_id: str
    suffix: str
    size: ImageSize


def clean(content: bytes, item: str, limits: ImageLimits | None = None) -> CleanImage:
    """The image turned by its EXIF orientation, then rid of EXIF, GPS, comments, thumbnails and trailing data.

    Only a turn encodes the pixels anew; otherwise the compressed pixels stay byte for byte, and so does a whole file
    without metadata. Of a multi-picture JPEG (phones) the first picture is kept. Raises ImageError naming `item` for
    empty, truncated, oversized, animated or foreign files.
    """
    image = open_image(content, item, limits or ImageLimits())
    suffix = ".png" if image.format == "PNG" else ".jpg"
    size = ImageSize(*image.size)
    if _orientation(image) != 1:
        content, size = _turned(image)
    try:
        content = without_metadata(content)
    except ValueError as error:
        raise ImageError(item, str(error), "an intact JPEG or PNG file", "Copy the file again.") from error
    return CleanImage(content, hashlib.sha256(content).hexdigest(), suffix, size)


def open_image(content: bytes, item: str, limits: ImageLimits) -> Image.Image:
    """A fully decoded JPEG or PNG; raises ImageError naming `item` where it is none or breaks a limit."""
    if not content:
        raise ImageError(item, "0 bytes", "a JPEG or PNG file", "Copy the file again.")
    if len(content) > limits.max_bytes:
        raise ImageError(item, f"{len(content)} bytes", f"at most {limits.max_bytes} bytes", "Scale the image down.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = opened(io.BytesIO(content))
        if image.format == "BMP":
            raise UnidentifiedImageError("a BMP file")
        if image.width * image.height > limits.max_pixels:
            raise ImageError(item, f"{image.width}×{image.height}", f"at most {limits.max_pixels} pixels", "Scale it.")
        if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
            raise ImageError(item, f"{image.n_frames} frames", "a single picture", "Export one frame.")  # type: ignore[attr-defined]
        image.load()
    except UnidentifiedImageError as error:
        raise ImageError(item, str(error), "a JPEG or PNG file", "Export the image again.") from error
    except (OSError, SyntaxError, ValueError, struct.error, IndexError, KeyError, TypeError) as error:
        raise ImageError(item, str(error), "an intact JPEG or PNG file", "Copy the file again.") from error
    return image


def opened(stream: BinaryIO) -> ImageFile:
    """A JPEG, PNG or BMP whose pixels are not decoded yet; of a multi-picture JPEG the first picture.

    Asks Pillow's classes directly, because other packages replace `Image.open`. Raises UnidentifiedImageError for any
    other file, SyntaxError for a damaged one.
    """
    start = stream.read(8)
    stream.seek(0)
    for magic, kind in _KINDS.items():
        if start.startswith(magic):
            return kind(stream)
    raise UnidentifiedImageError("neither JPEG nor PNG")


def read_image(path: Path, limits: ImageLimits | None = None) -> Image.Image:
    """The image of a file, turned upright, in RGB; raises ImageError naming the path."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(str(path), str(error), "a readable file", "Restore the file.") from error
    limits = limits or ImageLimits()
    image = open_image(png_of_bmp(content, str(path), limits), str(path), limits)
    return _upright(image).convert("RGB")


def png_of_bmp(content: bytes, item: str, limits: ImageLimits) -> bytes:
    """A BMP's pixels as PNG, for sets that are published so; any other content as it is.

    Raises ImageError naming `item` for a damaged BMP or one over the limits.
    """
    if not content.startswith(b"BM"):
        return content
    buffer = io.BytesIO()
    try:
        image = opened(io.BytesIO(content))
        if image.width * image.height > limits.max_pixels:
            raise ImageError(item, f"{image.width}×{image.height}", f"at most {limits.max_pixels} pixels", "Scale it.")
        image.save(buffer, "PNG")
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise ImageError(item, str(error), "an intact BMP file", "Copy the file again.") from error
    return buffer.getvalue()


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where EXIF is absent or damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = image.getexif().get(ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _upright(image: Image.Image) -> Image.Image:
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _turned(image: Image.Image) -> tuple[bytes, ImageSize]:
    upright = _upright(image)
    buffer = io.BytesIO()
    icc = image.info.get("icc_profile")
    if image.format == "PNG":
        kept = {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
        upright.save(buffer, "PNG", icc_profile=icc, exif=b"", **kept)
    else:
        upright.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0, icc_profile=icc, exif=b"", comment=b"")
    return buffer.getvalue(), ImageSize(*upright.size)
