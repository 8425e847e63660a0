"""Squares, crops and suppression: what training, evaluation and serving all see."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from converters.geometry import ImageSize, PixelBox
from ml_backend.bundle import DetectorSpec, Scaling
from ml_backend.preprocessing import (
    GREY,
    crop_lesion,
    crop_window,
    decode_detections,
    detector_input,
    fuse,
    letterbox,
    scale_crops,
    softmax,
    suppress,
)

RANDOM = np.random.default_rng(1)


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([64, 160, 640]))
def test_boxes_go_into_the_square_and_come_back(width: int, height: int, size: int) -> None:
    square, place = letterbox(np.zeros((height, width, 3), np.uint8), size)
    boxes = np.array([[0, 0, width, height], [width / 3, height / 4, width / 2, height / 2]], dtype=np.float32)
    inside = place.to_square(boxes)
    assert square.shape == (size, size, 3) and np.allclose(place.to_picture(inside), boxes, atol=1e-2)
    assert inside.min() >= 0 and inside.max() <= size + 1e-3


@pytest.mark.parametrize("shape", [(768, 1024), (1024, 768), (300, 1201), (640, 640), (97, 1000), (3, 3)])
def test_two_threads_make_the_same_square_as_one(shape: tuple[int, int]) -> None:
    picture = RANDOM.integers(0, 255, (*shape, 3), dtype=np.uint8)
    with ThreadPoolExecutor(1) as helper:
        together, place = letterbox(picture, 320, helper)
    alone, same_place = letterbox(picture, 320)
    assert np.array_equal(together, alone) and place == same_place


def test_the_margin_of_a_square_is_grey_and_the_picture_is_centred() -> None:
    square, place = letterbox(np.zeros((50, 100, 3), np.uint8), 200)
    assert (place.left, place.top, place.x_factor, place.y_factor) == (0, 50, 2.0, 2.0)
    assert (square[:50] == GREY).all() and (square[150:] == GREY).all() and (square[50:150] == 0).all()


def test_the_detectors_batch_is_planar_and_in_unit_range() -> None:
    square = RANDOM.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    batch = detector_input([square, square])
    assert batch.shape == (2, 3, 8, 8) and batch.dtype == np.float32
    assert np.allclose(batch[1], square.transpose(2, 0, 1) / 255)


@given(
    st.floats(-50, 400),
    st.floats(-50, 300),
    st.floats(1, 300),
    st.floats(1, 300),
    st.floats(0, 0.5),
)
def test_a_crop_window_holds_its_box_and_stays_inside_where_it_can(
    x: float, y: float, width: float, height: float, padding: float
) -> None:
    size = ImageSize(400, 300)
    box = PixelBox(x, y, x + width, y + height).clipped(size)
    window = crop_window(box, padding, size)
    assert window.width == pytest.approx(window.height)
    assert window.x_min <= box.x_min + 1e-6 and window.x_max >= box.x_max - 1e-6
    if window.width <= 300:
        assert window.x_min >= -1e-6 and window.y_min >= -1e-6
        assert window.x_max <= 400 + 1e-6 and window.y_max <= 300 + 1e-6
    assert crop_lesion(np.zeros((300, 400, 3), np.uint8), box, padding, 32).shape == (32, 32, 3)


def test_a_crop_is_what_resizing_the_whole_picture_to_its_window_gives() -> None:
    picture = RANDOM.integers(0, 255, (300, 400, 3), dtype=np.uint8)
    for box in (PixelBox(100.3, 80.7, 180.2, 150.9), PixelBox(3, 2, 60, 70), PixelBox(200, 100, 391, 290)):
        window = crop_window(box, 0.15, ImageSize(400, 300))
        edges = (window.x_min, window.y_min, window.x_max, window.y_max)
        whole = Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR, edges, reducing_gap=3.0)
        off = crop_lesion(picture, box, 0.15, 64).astype(int) - np.asarray(whole).astype(int)
        assert np.abs(off).max() <= 1 and np.abs(off).mean() < 0.01


def test_a_window_larger_than_the_picture_is_filled_with_grey() -> None:
    crop = crop_lesion(np.zeros((50, 100, 3), np.uint8), PixelBox(0, 0, 100, 50), 0.0, 100)
    assert (crop[:25] == GREY).all() and (crop[75:] == GREY).all() and (crop[25:75] == 0).all()


def test_each_scaling_is_what_its_networks_were_made_for() -> None:
    crops = np.array([[[[0, 127, 255]]]], dtype=np.uint8)
    assert np.allclose(scale_crops(crops, Scaling.UNIT), [[[[0, 127 / 255, 1]]]])
    assert np.allclose(scale_crops(crops, Scaling.SIGNED), [[[[-1, 127 / 127.5 - 1, 1]]]], atol=1e-6)
    assert np.allclose(scale_crops(crops, Scaling.CAFFE), [[[[255 - 103.939, 127 - 116.779, -123.68]]]])


def test_suppression_keeps_the_best_of_each_heap() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60], [0, 0, 4, 4]], dtype=np.float32)
    assert suppress(boxes, 0.5, 10).tolist() == [0, 2, 3]
    assert suppress(boxes, 0.5, 1).tolist() == [0]


def test_raw_output_is_read_best_first_and_without_the_impossible() -> None:
    raw = np.zeros((6, 5), dtype=np.float32)
    raw[:4] = np.array([[20, 20, 60, 61, np.nan], [20] * 5, [10] * 5, [10] * 5])
    raw[4:] = np.array([[0.1, 0.7, 0.2, 0.9, 0.99], [0.3, 0.2, 0.8, 0.1, 0.99]])
    found = decode_detections(raw, 0.25, DetectorSpec(640, fusion_iou=None), 10)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.boxes.tolist() == [[56, 15, 66, 25], [15, 15, 25, 25]]


def test_a_kept_box_becomes_the_mean_of_all_that_agree_with_it() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 12, 10], [0, 0, 4, 4], [50, 50, 60, 60]], dtype=np.float32)
    scores = np.array([0.9, 0.3, 0.8, 0.5], dtype=np.float32)
    assert fuse(boxes[[0, 3]], boxes, scores, 0.7).tolist() == [[0, 0, 10.5, 10], [50, 50, 60, 60]]
    speck = np.array([[5, 5, 5, 5]], dtype=np.float32)
    assert fuse(speck, boxes, scores, 0.7).tolist() == speck.tolist()


def test_a_fused_box_depends_on_the_faint_too_but_not_on_the_floor() -> None:
    raw = np.zeros((5, 60), dtype=np.float32)
    raw[:4] = np.array([[100], [100], [40], [40]]) + RANDOM.normal(0, 2, (4, 60))
    raw[4] = np.linspace(0.9, 0.002, 60)
    (high,) = decode_detections(raw, 0.5, DetectorSpec(640), 10).boxes
    low = decode_detections(raw, 0.001, DetectorSpec(640), 10).boxes[0]
    (plain,) = decode_detections(raw, 0.5, DetectorSpec(640, fusion_iou=None), 10).boxes
    assert np.array_equal(high, low) and np.abs(high - [80, 80, 120, 120]).max() < 1
    x, y, width, height = raw[:4, 0]
    assert np.allclose(plain, [x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def test_temperature_flattens_without_changing_the_order() -> None:
    logits = np.array([[2.0, 0.0, -1.0]], dtype=np.float32)
    sharp, flat = softmax(logits, 0.5)[0], softmax(logits, 4.0)[0]
    assert sharp[0] > softmax(logits)[0][0] > flat[0] and flat.argmax() == 0
    assert sharp.sum() == pytest.approx(1) == flat.sum()
