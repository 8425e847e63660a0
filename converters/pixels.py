"""Pixels as they may leave the house: upright, without metadata, redacted regions black; crops and masks as files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from converters import images
from converters.annotation import Shape
from converters.errors import ImageError
from converters.geometry import ImageSize, PixelBox, RleMask
from converters.images import ImageLimits
from converters.raster import Mask, shape_to_mask


def exported(path: Path, redactions: tuple[Shape, ...]) -> bytes:
    """The bytes of an image as they may leave the house: upright, no metadata, redacted regions black."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(str(path), str(error), "a readable image", "Restore the file.") from error
    clean = images.clean(images.png_of_bmp(content, str(path), ImageLimits()), str(path))
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


def crop(image: Image.Image, box: PixelBox) -> bytes:
    """JPEG bytes of a part of an image; what lies outside the image is black. `box` is rounded outwards."""
    edges = (int(np.floor(box.x_min)), int(np.floor(box.y_min)), int(np.ceil(box.x_max)), int(np.ceil(box.y_max)))
    buffer = io.BytesIO()
    image.convert("RGB").crop(edges).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def mask_png(mask: Mask) -> bytes:
    """PNG bytes of a mask, one bit to a pixel."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


def read_mask(path: Path, item: str) -> RleMask:
    """The pixels above half brightness of a mask file; raises ImageError naming `item`."""
    grey = np.asarray(images.read_image(path).convert("L"))
    if not (found := grey > 127).any() and grey.any():
        found = grey > 0
    if not found.any():
        raise ImageError(item, str(path), "a mask with at least one pixel", "Draw the mask again.")
    return RleMask.from_array(found)
