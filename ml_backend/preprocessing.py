"""What happens to pixels before and after the graphs; training, evaluation and serving all call these functions."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.geometry import ImageSize, PixelBox
from ml_backend.bundle import DetectorSpec, DetectorTask, Scaling

Pixels: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]

GREY = 114
MASK_COEFFICIENTS = 32
_BILINEAR = Image.Resampling.BILINEAR
_GAP = 3.0
_REACH = 4
"""How many output pixels' worth of input around a part the filter may look at; more is never copied."""

_FAINT = 0.001
_MOST = 4096
_CAFFE_MEAN_BGR = np.array([103.939, 116.779, 123.68], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where a picture lies inside its square: the factors it was scaled by, and the grey margin at left and top."""

    x_factor: float
    y_factor: float
    left: int
    top: int

    def to_picture(self, boxes: Floats) -> Floats:
        """Corner boxes (N, 4) of the square, in pixels of the picture."""
        shift = np.array([self.left, self.top, self.left, self.top], dtype=np.float32)
        factors = np.array([self.x_factor, self.y_factor, self.x_factor, self.y_factor], dtype=np.float32)
        return (boxes - shift) / factors

    def to_square(self, boxes: Floats) -> Floats:
        """Corner boxes (N, 4) of the picture, in pixels of the square."""
        shift = np.array([self.left, self.top, self.left, self.top], dtype=np.float32)
        factors = np.array([self.x_factor, self.y_factor, self.x_factor, self.y_factor], dtype=np.float32)
        return boxes * factors + shift


@dataclass(frozen=True, slots=True)
class Candidates:
    """Detections of one picture, best first: corner boxes (N, 4), scores (N,), mask coefficients (N, 32) or (N, 0).

    `peak` is the best score of all, however faint: what the detector came nearest to seeing.
    """

    boxes: Floats
    scores: Floats
    coefficients: Floats
    peak: float = 0.0


def letterbox(pixels: Pixels, size: int, helper: Executor | None = None) -> tuple[Pixels, Letterbox]:
    """A picture (H, W, 3) scaled to fit a square (size, size, 3), centred on grey 114, and where it lies in there.

    With a helper, another thread does half of the work; the pixels come out the same.
    """
    height, width = pixels.shape[:2]
    factor = size / max(height, width)
    new_width, new_height = max(round(width * factor), 1), max(round(height * factor), 1)
    left, top = (size - new_width) // 2, (size - new_height) // 2
    square = np.full((size, size, 3), GREY, dtype=np.uint8)
    if helper is not None and 1 / factor < 2 * _GAP and height > 2 and new_width > 2:
        inner = _resized_by_two(pixels, new_width, new_height, helper)
    else:
        inner = _resized(pixels, new_width, new_height)
    square[top : top + new_height, left : left + new_width] = inner
    return square, Letterbox(new_width / width, new_height / height, left, top)


def detector_input(squares: list[Pixels]) -> Floats:
    """Letterboxed squares as the detector's batch (N, 3, S, S): RGB in [0, 1]."""
    size = squares[0].shape[0]
    batch = np.empty((len(squares), 3, size, size), dtype=np.float32)
    for row, square in zip(batch, squares, strict=True):
        np.multiply(square.transpose(2, 0, 1), np.float32(1 / 255), out=row)
    return batch


def crop_window(box: PixelBox, padding: float, size: ImageSize) -> PixelBox:
    """The square around a box that the classifier sees, in the box's pixels.

    Its side is the box's longer side grown by `padding` of it on each side. Where it would leave the picture it is
    moved inside; only a square larger than the picture sticks out, evenly on both sides.
    """
    side = max(max(box.width, box.height) * (1 + 2 * padding), 1.0)
    x_centre, y_centre = box.centre
    x = _start(x_centre - side / 2, side, size.width)
    y = _start(y_centre - side / 2, side, size.height)
    return PixelBox(x, y, x + side, y + side)


def crop_lesion(pixels: Pixels, box: PixelBox, padding: float, input_size: int) -> Pixels:
    """The lesion of a box in pixels of this array (H, W, 3), as (input_size, input_size, 3); grey 114 outside."""
    size = ImageSize(pixels.shape[1], pixels.shape[0])
    window = crop_window(box, padding, size)
    inside = window.clipped(size)
    if inside.width < 1 or inside.height < 1:
        inside = PixelBox(0, 0, size.width, size.height)
        window = inside
    factor = input_size / window.width
    x, y = round((inside.x_min - window.x_min) * factor), round((inside.y_min - window.y_min) * factor)
    width = min(max(round(inside.width * factor), 1), input_size - x)
    height = min(max(round(inside.height * factor), 1), input_size - y)
    crop = np.full((input_size, input_size, 3), GREY, dtype=np.uint8)
    crop[y : y + height, x : x + width] = _resized(pixels, width, height, inside)
    return crop


def scale_crops(crops: Pixels, scaling: Scaling) -> Floats:
    """The classifier's batch (N, S, S, 3) of 8-bit RGB crops, scaled as the bundle says."""
    if scaling is Scaling.UNIT:
        return np.multiply(crops, np.float32(1 / 255), dtype=np.float32)
    if scaling is Scaling.SIGNED:
        return np.multiply(crops, np.float32(1 / 127.5), dtype=np.float32) - np.float32(1)
    scaled = np.empty(crops.shape, dtype=np.float32)
    for channel, mean in enumerate(_CAFFE_MEAN_BGR):
        np.subtract(crops[..., 2 - channel], mean, out=scaled[..., channel], dtype=np.float32)
    return scaled


def decode_detections(raw: Floats, floor: float, spec: DetectorSpec, limit: int) -> Candidates:
    """The detections of one picture out of YOLO11's raw output (4 + classes + masks, anchors).

    Boxes are corners in pixels of the square; the score is the best class's. Greedy suppression keeps at most `limit`
    of those that reach `floor`; what is fainter only has a share in their fusion, so that a box does not depend on the
    floor. Source: ultralytics' export of the detect and segment heads without NMS.
    """
    classes = raw.shape[0] - (MASK_COEFFICIENTS if spec.task is DetectorTask.SEGMENT else 0)
    scores = raw[4] if classes == 5 else raw[4:classes].max(axis=0)
    drawable = np.isfinite(raw[:4]).all(axis=0) & (raw[2:4] > 0).all(axis=0)
    chosen = _best_first(scores, drawable & (scores >= min(floor, _FAINT)))
    found, shares = raw[:, chosen], scores[chosen].astype(np.float32)
    x, y, half_w, half_h = found[0], found[1], found[2] / 2, found[3] / 2
    boxes = np.stack((x - half_w, y - half_h, x + half_w, y + half_h), axis=1).astype(np.float32)
    kept = suppress(boxes[: np.count_nonzero(shares >= floor)], spec.iou_threshold, limit)
    final = boxes[kept] if spec.fusion_iou is None else fuse(boxes[kept], boxes, shares, spec.fusion_iou)
    coefficients = found[classes:, kept].T.astype(np.float32)
    return Candidates(final, shares[kept], coefficients, float(np.fmax.reduce(scores, initial=0.0)))


def suppress(boxes: Floats, iou_threshold: float, limit: int) -> NDArray[np.intp]:
    """Indices of boxes (N, 4), sorted best first, that no better kept box overlaps by more than the threshold."""
    left: NDArray[np.intp] = np.arange(len(boxes), dtype=np.intp)
    kept: list[int] = []
    while left.size and len(kept) < limit:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        left = left[_overlaps(boxes[best : best + 1], boxes[left])[0] <= iou_threshold]
    return np.array(kept, dtype=np.intp)


def fuse(kept: Floats, boxes: Floats, scores: Floats, iou_threshold: float) -> Floats:
    """Boxes (K, 4), each the mean, weighted by score, of all boxes (N, 4) that overlap it by more than the threshold.

    A box that overlaps none stays as it is. Source: box voting, Gidaris and Komodakis 2015, without its classes.
    """
    weights = np.where(_overlaps(kept, boxes) > iou_threshold, scores, np.float32(0))
    total = weights.sum(axis=1, keepdims=True)
    return np.where(total > 0, weights @ boxes / np.maximum(total, np.float32(1e-9)), kept)


def softmax(logits: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (N, C) of logits (N, C), flattened or sharpened by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _best_first(scores: Floats, eligible: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Indices of the eligible, best score first, at most 4,096."""
    chosen = np.flatnonzero(eligible)
    if chosen.size > _MOST:
        chosen = chosen[np.argpartition(scores[chosen], -_MOST)[-_MOST:]]
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def _overlaps(some: Floats, others: Floats) -> Floats:
    """Intersection over union (K, N) of corner boxes (K, 4) with others (N, 4)."""
    x0, y0, x1, y1 = some.T[:, :, None]
    left, top, right, bottom = others.T
    shared = _sides(np.minimum(x1, right) - np.maximum(x0, left), np.minimum(y1, bottom) - np.maximum(y0, top))
    united = _sides(x1 - x0, y1 - y0) + _sides(right - left, bottom - top) - shared
    return np.asarray(shared / np.maximum(united, np.float32(1e-9)))


def _sides(widths: Floats, heights: Floats) -> Floats:
    return np.asarray(np.maximum(widths, 0) * np.maximum(heights, 0))


def _start(start: float, side: float, extent: int) -> float:
    if side >= extent:
        return (extent - side) / 2
    return min(max(start, 0.0), extent - side)


def _resized_by_two(pixels: Pixels, width: int, height: int, helper: Executor) -> Pixels:
    """The resize in its two passes, rows and then columns, each shared between this thread and a helper's."""
    rows = pixels.shape[0]
    middle, centre = rows // 2, width // 2
    above = helper.submit(_band, pixels[:middle], width)
    below = _band(pixels[middle:], width)
    tall = Image.new("RGB", (width, rows))
    tall.paste(above.result(), (0, 0))
    tall.paste(below, (0, middle))
    left = helper.submit(_columns, tall, 0, centre, height)
    right = _columns(tall, centre, width, height)
    return np.concatenate((left.result(), right), axis=1)


def _band(rows: Pixels, width: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(rows)).resize((width, rows.shape[0]), _BILINEAR)


def _columns(tall: Image.Image, left: int, right: int, height: int) -> Pixels:
    return np.asarray(tall.crop((left, 0, right, tall.height)).resize((right - left, height), _BILINEAR))


def _resized(pixels: Pixels, width: int, height: int, part: PixelBox | None = None) -> Pixels:
    if part is None and pixels.shape[:2] == (height, width):
        return pixels
    if part is None:
        return np.asarray(Image.fromarray(pixels).resize((width, height), _BILINEAR, reducing_gap=_GAP))
    margin = math.ceil(max(part.width / width, part.height / height)) * _REACH
    left, top = max(math.floor(part.x_min) - margin, 0), max(math.floor(part.y_min) - margin, 0)
    near = pixels[top : math.ceil(part.y_max) + margin, left : math.ceil(part.x_max) + margin]
    box = (part.x_min - left, part.y_min - top, part.x_max - left, part.y_max - top)
    image = Image.fromarray(np.ascontiguousarray(near))
    return np.asarray(image.resize((width, height), _BILINEAR, box, reducing_gap=_GAP))
