"""Shapes, and every conversion between their units."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from converters import geometry
from converters.errors import GeometryError
from converters.geometry import Ellipse, ImageSize, KeyPoint, PercentBox, PixelBox, Polygon, RleMask, RotatedBox
from converters.raster import on_outline

SIZES = st.builds(ImageSize, st.integers(1, 4000), st.integers(1, 4000))
NUMBERS = st.floats(0, 1000)
BOXES = st.builds(lambda x, y, w, h: PixelBox(x, y, x + w, y + h), NUMBERS, NUMBERS, NUMBERS, NUMBERS)
TURNED = st.builds(RotatedBox, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.floats(-720, 720))


def near(one: PixelBox, other: PixelBox, tolerance: float = 1e-6) -> bool:
    pairs = zip(edges(one), edges(other), strict=True)
    return all(math.isclose(a, b, abs_tol=tolerance) for a, b in pairs)


def edges(box: PixelBox) -> tuple[float, float, float, float]:
    return box.x_min, box.y_min, box.x_max, box.y_max


@given(BOXES, SIZES)
def test_a_box_comes_back_from_percent_where_it_was(box: PixelBox, size: ImageSize) -> None:
    assert near(geometry.percent_to_pixel(geometry.pixel_to_percent(box, size), size), box)


@given(TURNED, SIZES)
def test_a_turned_box_comes_back_from_label_studios_corner_turn(box: RotatedBox, size: ImageSize) -> None:
    back = geometry.percent_to_rotated(geometry.rotated_to_percent(box, size), size)
    assert near(back.envelope(), box.envelope(), 1e-5)
    assert math.isclose(back.width, box.width, abs_tol=1e-6) and back.angle == box.angle


def test_a_quarter_turn_about_the_corner_on_an_oblong_image_swings_left_of_it() -> None:
    found = geometry.percent_to_pixel(PercentBox(50, 50, 10, 20, 90), ImageSize(200, 100))
    assert near(found, PixelBox(80, 50, 100, 70))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_follows_the_turn_that_pillow_makes(orientation: int) -> None:
    stored = np.zeros((20, 30), dtype=np.uint8)
    stored[3:8, 4:17] = 255
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(image)
    box = geometry.upright_box(PixelBox(4, 3, 17, 8), ImageSize(30, 20), orientation)
    left, top, right, bottom = upright.getbbox() or ()
    assert box == PixelBox(left, top, right, bottom)
    assert geometry.upright_size(ImageSize(30, 20), orientation) == ImageSize(*upright.size)


def test_an_unknown_orientation_is_refused() -> None:
    with pytest.raises(GeometryError, match="1 to 8"):
        geometry.upright_box(PixelBox(0, 0, 1, 1), ImageSize(2, 2), 9)


@given(BOXES, BOXES)
def test_overlap_is_symmetric_and_between_nought_and_one(one: PixelBox, other: PixelBox) -> None:
    assert 0 <= one.iou(other) <= 1 + 1e-9
    assert one.iou(other) == other.iou(one)


@given(BOXES, SIZES)
def test_a_clipped_box_lies_inside_and_clipping_again_changes_nothing(box: PixelBox, size: ImageSize) -> None:
    inside = box.clipped(size)
    assert 0 <= inside.x_min <= inside.x_max <= size.width
    assert inside.clipped(size) == inside


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_mask_comes_back_from_runs_with_its_area_and_box(rows: list[list[bool]]) -> None:
    mask = np.array(rows)
    runs = RleMask.from_array(mask)
    box = runs.envelope()
    assert np.array_equal(runs.to_array(), mask)
    assert runs.area() == mask.sum()
    assert (box is None) == (not mask.any())
    if box is not None:
        cut = mask[int(box.y_min) : int(box.y_max), int(box.x_min) : int(box.x_max)]
        assert cut.sum() == mask.sum() and cut.any(axis=0)[[0, -1]].all() and cut.any(axis=1)[[0, -1]].all()


@given(st.builds(Ellipse, NUMBERS, NUMBERS, st.floats(0.5, 300), st.floats(0.5, 300), st.floats(0, 360)))
def test_an_ellipse_as_polygon_keeps_its_area_and_nearly_its_box(ellipse: Ellipse) -> None:
    outline = ellipse.outline()
    assert math.isclose(outline.area(), math.pi * ellipse.x_radius * ellipse.y_radius, rel_tol=1e-6)
    assert outline.envelope().iou(ellipse.envelope()) > 0.98


def test_a_polygon_with_a_hole_loses_the_hole_from_its_area() -> None:
    square = ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0))
    hole = ((2.0, 2.0), (4.0, 2.0), (4.0, 4.0), (2.0, 4.0))
    assert Polygon(square, (hole,)).area() == 96


@pytest.mark.parametrize(
    "make",
    [
        lambda: PixelBox(2, 0, 1, 1),
        lambda: PixelBox(0, 0, math.nan, 1),
        lambda: PixelBox(0, 0, math.inf, 1),
        lambda: RotatedBox(0, 0, -1, 1),
        lambda: RotatedBox(0, 0, 1, 1, math.nan),
        lambda: Ellipse(0, 0, 1, -1),
        lambda: Polygon(((0, 0), (1, 1))),
        lambda: Polygon(((0, 0), (1, 1), (math.nan, 0))),
        lambda: RleMask(ImageSize(2, 2), (3,)),
        lambda: RleMask(ImageSize(2, 2), (5, -1)),
        lambda: KeyPoint(math.inf, 0, "centre"),
        lambda: ImageSize(0, 3),
    ],
)
def test_numbers_that_describe_no_region_are_refused(make: object) -> None:
    with pytest.raises(GeometryError, match="expected"):
        make()  # type: ignore[operator]


def test_negative_zero_is_written_as_zero() -> None:
    assert str(geometry.without_negative_zero(PixelBox(-0.0, -0.0, 1, 1)).x_min) == "0.0"


def test_padding_moving_and_scaling_keep_the_centre_where_it_belongs() -> None:
    box = PixelBox(10, 20, 30, 60)
    assert box.padded(0.5) == PixelBox(0, 0, 40, 80)
    assert box.moved(1, -1).centre == (21, 39)
    assert box.scaled(2, 0.5) == PixelBox(20, 10, 60, 30)


def test_pixels_whose_centre_lies_on_an_edge_are_told_from_those_inside() -> None:
    pixels = np.array([[2, 2], [2, 3], [5, 9]])
    assert on_outline(PixelBox(2.5, 1, 8, 6), pixels, 0.01).tolist() == [True, False, False]
