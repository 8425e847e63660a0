"""The class activation map as a picture: where the classifier looked, laid over what it looked at.

With a pooled linear head the map equals Grad-CAM (Zhou et al. 2016), so it costs one resize, not a second pass.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from converters.annotation import Lesion
from converters.geometry import ImageSize, PixelBox
from ml_backend.images import DecodedImage
from ml_backend.preprocessing import Pixels, crop_window
from ml_backend.reading import Reading

_STRENGTH = 0.55
_LONG_SIDE = 1024
_QUALITY = 88
_ANCHORS = np.array(
    [[0, 0, 32], [68, 15, 110], [160, 40, 100], [221, 81, 58], [252, 165, 10], [252, 255, 164]], dtype=np.float32
)


def draw(
    image: DecodedImage, lesions: Sequence[Lesion], readings: Sequence[Reading | None], crop_padding: float
) -> bytes:
    """A JPEG of the picture, at most 1024 pixels long, with each lesion's activation map and box."""
    canvas = _reduced(image)
    for lesion, reading in zip(lesions, readings, strict=True):
        if reading is not None and reading.cam is not None:
            _blend(canvas.pixels, reading.cam, canvas.to_pixels(lesion.box), crop_padding)
    picture = Image.fromarray(canvas.pixels)
    pen = ImageDraw.Draw(picture)
    for lesion in lesions:
        box = canvas.to_pixels(lesion.box)
        pen.rectangle((box.x_min, box.y_min, box.x_max, box.y_max), outline="white", width=2)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _reduced(image: DecodedImage) -> DecodedImage:
    height, width = image.pixels.shape[:2]
    factor = min(_LONG_SIDE / max(height, width), 1.0)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    return DecodedImage(np.array(Image.fromarray(image.pixels).resize(size, reducing_gap=2.0)), image.size)


def _blend(pixels: Pixels, cam: NDArray[np.float32], box: PixelBox, crop_padding: float) -> None:
    """Colours the crop window of `pixels` in place: the canvas is this module's own."""
    size = ImageSize(pixels.shape[1], pixels.shape[0])
    window = crop_window(box, crop_padding, size)
    x, y, side = round(window.x_min), round(window.y_min), max(round(window.width), 1)
    heat = np.asarray(Image.fromarray(cam).resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + side, size.width), min(y + side, size.height)
    heat = heat[top - y : bottom - y, left - x : right - x]
    share = (heat * _STRENGTH)[..., None]
    part = pixels[top:bottom, left:right]
    pixels[top:bottom, left:right] = (part * (1 - share) + _colours(heat) * share).astype(np.uint8)


def _colours(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    steps = np.linspace(0, 1, len(_ANCHORS))
    return np.stack([np.interp(heat, steps, _ANCHORS[:, channel]) for channel in range(3)], axis=-1)
