"""Bytes into upright RGB pixels: turned, colour-managed, at the scale the models need, within declared limits."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from converters.geometry import ImageSize, PixelBox, upright_size
from converters.images import ORIENTATION, TURNS
from ml_backend.errors import UnreadableImageError
from ml_backend.preprocessing import Pixels

_FORMATS = ("JPEG", "PNG")
_EXPECTED = "an intact JPEG or PNG picture"
_BROKEN = (OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError,
           MemoryError, struct.error, zlib.error)  # fmt: skip
"""What Pillow's readers have been seen to raise on damaged files."""
_FOREIGN = (b"<script", b"<html", b"<?php", b"<iframe", b"%pdf-", b"rar!\x1a\x07")
_ARCHIVE = (b"PK\x05\x06", b"PK\x01\x02")
_STRIP = 64
_MARGIN = 1 << 18
"""How far into a file, from either end, other formats are looked for: what lies between is the picture's own data."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Largest accepted file in bytes and picture in pixels, and the long side that is enough to work with.

    A larger picture is taken at 1/2, 1/4 or 1/8 while its long side keeps to `working_side`; a JPEG is decoded so, and
    never unfolded at full size.
    """

    max_bytes: int = 50_000_000
    max_pixels: int = 80_000_000
    working_side: int = 1280


DEFAULT_LIMITS = DecodeLimits()


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """Upright RGB pixels (H, W, 3), and the size of the original, which `pixels` may be a reduction of."""

    pixels: Pixels
    size: ImageSize

    def to_pixels(self, box: PixelBox) -> PixelBox:
        """A box in original coordinates, in coordinates of the pixel array."""
        height, width = self.pixels.shape[:2]
        return box.scaled(width / self.size.width, height / self.size.height)

    def to_original(self, box: PixelBox) -> PixelBox:
        """A box in coordinates of the pixel array, in original coordinates."""
        height, width = self.pixels.shape[:2]
        return box.scaled(self.size.width / width, self.size.height / height)


def decode(content: bytes, item: str, limits: DecodeLimits = DEFAULT_LIMITS) -> DecodedImage:
    """The picture of a JPEG or PNG file, upright and in sRGB; of a picture with alpha, as it looks on white.

    Of a multi-picture JPEG the first picture counts. Raises UnreadableImageError naming `item` for an empty, truncated,
    animated, oversized or foreign file.
    """
    if not content:
        raise UnreadableImageError(item, "0 bytes", _EXPECTED, "Send the file again.")
    if len(content) > limits.max_bytes:
        raise UnreadableImageError(item, f"{len(content)} bytes", f"at most {limits.max_bytes}", "Scale it down.")
    _refuse_polyglot(content, item)
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        stored = _checked_size(image, item, limits)
        _reduce(image, limits.working_side)
        orientation = _orientation(image)
        image.load()
        pixels = np.asarray(_turned(_small(image, limits.working_side), orientation))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = "a picture that unfolds to far more"
        raise UnreadableImageError(item, found, f"at most {limits.max_pixels} pixels", "Scale it down.") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(item, _reason(error), _EXPECTED, "Export the image again.") from error
    except _BROKEN as error:
        raise UnreadableImageError(item, _reason(error), _EXPECTED, "Copy the file again.") from error
    return DecodedImage(pixels, upright_size(stored, orientation))


def _refuse_polyglot(content: bytes, item: str) -> None:
    """A picture that is a page, a script, a document or an archive as well is never what a camera wrote."""
    ends = content if len(content) <= 2 * _MARGIN else content[:_MARGIN] + content[-_MARGIN:]
    folded = ends.lower()
    if any(mark in folded for mark in _FOREIGN) or all(mark in ends for mark in _ARCHIVE):
        raise UnreadableImageError(item, "something else as well", "a picture and nothing more", "Re-save the picture.")


def _checked_size(image: Image.Image, item: str, limits: DecodeLimits) -> ImageSize:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise UnreadableImageError(item, f"{width}×{height}", f"at most {limits.max_pixels} pixels", "Scale it down.")
    if image.format != "MPO" and (frames := int(getattr(image, "n_frames", 1))) > 1:
        raise UnreadableImageError(item, f"{frames} frames", "a single picture", "Export one frame.")
    return ImageSize(width, height)


def _reduce(image: Image.Image, working_side: int) -> None:
    if image.format == "PNG":
        return
    share = working_side / max(image.size)
    if share < 1:
        image.draft(image.mode, (max(round(image.width * share), 1), max(round(image.height * share), 1)))


def _small(image: Image.Image, working_side: int) -> Image.Image:
    """The picture in sRGB, at 1/2, 1/4 or 1/8 by averaging where it is large, as the JPEG decoder does while it reads.

    It goes strip by strip, so that no second picture of the full size is ever in memory.
    """
    factor = next((factor for factor in (8, 4, 2) if max(image.size) >= working_side * factor), 1)
    if factor == 1:
        return _rgb(image)
    rows = _STRIP * factor
    small = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        small.paste(_rgb(strip).reduce(factor), (0, top // factor))
    return small


def _orientation(image: Image.Image) -> int:
    found = image.getexif().get(ORIENTATION, 1)
    return found if found in TURNS else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if profile := image.info.get("icc_profile"):
        return _colour_managed(image, profile)
    return image.convert("RGB") if image.mode != "RGB" else image


def _colour_managed(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" not in ImageCms.getProfileDescription(source):
            managed = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            return managed if managed is not None else image.convert("RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        pass
    return image.convert("RGB")


def _reason(error: BaseException) -> str:
    text = str(error)
    return "bytes of no known picture" if "BytesIO" in text or not text else text
