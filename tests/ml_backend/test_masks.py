"""A segmentation head's masks become outlines in original pixels, and brush or polygon regions in Label Studio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders_serving import DARK, SKIN, bundle, encoded, pixels
from PIL import Image, ImageDraw

from converters import taxonomy
from converters.geometry import Polygon
from converters.label_studio.brush import decode_brush
from converters.raster import mask_iou, shape_to_mask
from ml_backend.images import decode
from ml_backend.label_config import read_config, unmatched
from ml_backend.masks import simplified
from ml_backend.pipeline import ImagePrediction, Pipeline
from ml_backend.predictions import entry

KNOWN = taxonomy.read()
CONFIG = """<View><Image name="i" value="$i"/>
  <BrushLabels name="brush" toName="i"><Label value="Lesion"/></BrushLabels>
  <PolygonLabels name="outline" toName="i"><Label value="Lesion"/></PolygonLabels></View>"""


def round_lesion(width: int = 320, height: int = 240) -> tuple[bytes, np.ndarray]:
    image = Image.new("RGB", (width, height), SKIN)
    truth = Image.new("1", (width, height))
    edges = (40, 60, 140, 160)
    ImageDraw.Draw(image).ellipse(edges, fill=DARK)
    ImageDraw.Draw(truth).ellipse(edges, fill=1)
    return encoded(image), np.asarray(truth)


@pytest.fixture
def found(tmp_path: Path) -> ImagePrediction:
    pipeline = Pipeline.open(bundle(tmp_path, segment=True))
    return pipeline.predict([decode(round_lesion()[0], "picture")])[0]


def test_the_outline_follows_the_lesion(found: ImagePrediction) -> None:
    (lesion,) = found.lesions
    assert isinstance(lesion.shape, Polygon)
    assert mask_iou(shape_to_mask(lesion.shape, found.size), round_lesion()[1]) > 0.85


def test_brush_and_polygon_controls_are_filled(found: ImagePrediction) -> None:
    brush, outline = entry(found, KNOWN, read_config(CONFIG, KNOWN))["result"]
    painted = decode_brush(brush["value"]["rle"], found.size, "brush")
    assert brush["type"] == "brushlabels" and brush["value"]["format"] == "rle"
    assert mask_iou(painted, round_lesion()[1]) > 0.85
    assert outline["type"] == "polygonlabels" and len(outline["value"]["points"]) > 6


def test_a_detector_without_masks_leaves_the_brush_alone(tmp_path: Path) -> None:
    (plain,) = Pipeline.open(bundle(tmp_path)).predict([decode(encoded(pixels()), "picture")])
    rows = entry(plain, KNOWN, read_config(CONFIG, KNOWN))["result"]
    assert [row["from_name"] for row in rows] == ["outline"]


def test_a_brush_without_masks_is_reported() -> None:
    config = read_config(CONFIG, KNOWN)
    assert unmatched(config, None, KNOWN) == ("'brush' is a brush: the serving detector has no masks",)
    assert unmatched(config, None, KNOWN, outlines=True) == ()


def test_simplifying_keeps_corners_and_drops_what_lies_between() -> None:
    steps = [(float(x), 0.0) for x in range(20)] + [(20.0, float(y)) for y in range(20)]
    assert set(simplified((*steps, (0.0, 20.0)), 0.5)) == {(0.0, 0.0), (20.0, 0.0), (20.0, 19.0), (0.0, 20.0)}
