"""Boxes, readings and uncertainty through real graphs, the same for every way a picture comes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders_serving import DARK, SKIN, bundle, encoded, pixels
from PIL import Image

from converters.annotation import Origin
from converters.geometry import ImageSize, PixelBox
from converters.taxonomy import Target
from ml_backend import preprocessing
from ml_backend.bundle import DetectorSpec
from ml_backend.images import DecodeLimits, decode
from ml_backend.pipeline import ImagePrediction, Pipeline

BOX = PixelBox(20, 30, 60, 70)


def predict(pipeline: Pipeline, *contents: bytes) -> list[ImagePrediction]:
    return pipeline.predict([decode(content, "picture") for content in contents])


def near(box: PixelBox, other: PixelBox, tolerance: float = 3.0) -> bool:
    edges = ("x_min", "y_min", "x_max", "y_max")
    return all(abs(getattr(box, edge) - getattr(other, edge)) <= tolerance for edge in edges)


def test_a_lesion_is_found_read_and_told_in_original_pixels(tmp_path: Path) -> None:
    pipeline = Pipeline.open(bundle(tmp_path))
    (found,) = predict(pipeline, encoded(pixels()))
    (lesion,) = found.lesions
    assert found.size == ImageSize(160, 120) and found.model_version == pipeline.bundle.version
    assert near(lesion.box, BOX) and lesion.origin is Origin.PREDICTION
    assert lesion.score == pytest.approx(0.9)
    assert lesion.diagnosis in pipeline.bundle.taxonomy.codes and lesion.severity is not None
    assert sum(share for _, share in lesion.probabilities) == pytest.approx(1)
    assert [name for name, _ in lesion.probabilities] == [d.name for d in pipeline.bundle.taxonomy.diagnoses]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_gives_each_picture_what_it_gets_alone(tmp_path: Path, threads: int) -> None:
    pipeline = Pipeline.open(bundle(tmp_path), threads)
    contents = [encoded(pixels(120 + 8 * n, 100, ((10 + n, 20, 40, 50), (80, 10, 100 + n, 60)))) for n in range(11)]
    contents.insert(5, encoded(pixels(patches=())))
    together = predict(pipeline, *contents)
    assert [len(found.lesions) for found in together] == [2] * 5 + [0] + [2] * 6
    for alone, found in zip((predict(pipeline, content)[0] for content in contents), together, strict=True):
        assert same(alone, found)


def same(one: ImagePrediction, other: ImagePrediction) -> bool:
    return all(
        near(a.box, b.box, 1e-4) and np.allclose([p for _, p in a.probabilities], [p for _, p in b.probabilities])
        for a, b in zip(one.lesions, other.lesions, strict=True)
    )


def test_severity_and_malignancy_heads_leave_the_diagnosis_open(tmp_path: Path) -> None:
    for target in (Target.SEVERITY, Target.MALIGNANCY):
        (found,) = predict(Pipeline.open(bundle(tmp_path, target=target)), encoded(pixels()))
        assert found.lesions[0].diagnosis is None
        assert found.lesions[0].severity in ("low", "moderate", "high")


def test_coarser_answers_are_sums_of_the_finer_ones(tmp_path: Path) -> None:
    pipeline = Pipeline.open(bundle(tmp_path))
    (found,) = predict(pipeline, encoded(pixels()))
    reading = found.readings[0]
    assert reading is not None and reading.severity is not None
    shares = dict(reading.probabilities)
    assert dict(reading.severity)["high"] == pytest.approx(shares["mel"])
    assert reading.malignant == pytest.approx(shares["mel"] + shares["bcc"] + shares["akiec"])


def test_a_detector_alone_draws_boxes_and_a_classifier_alone_reads_the_whole_picture(tmp_path: Path) -> None:
    (drawn,) = predict(Pipeline.open(bundle(tmp_path, classifier=False)), encoded(pixels()))
    (read,) = predict(Pipeline.open(bundle(tmp_path, detector=False)), encoded(pixels()))
    assert drawn.lesions[0].diagnosis is None and drawn.lesions[0].severity is None and near(drawn.lesions[0].box, BOX)
    assert read.lesions[0].box == PixelBox(0, 0, 160, 120) and read.lesions[0].diagnosis is not None


def test_a_clearly_empty_picture_is_certain_and_a_finding_on_the_brink_is_not(tmp_path: Path) -> None:
    sure = Pipeline.open(bundle(tmp_path, classifier=False, score=0.9))
    brink = Pipeline.open(bundle(tmp_path, classifier=False, score=0.24, name="brink"))
    empty = encoded(pixels(patches=()))
    assert predict(sure, empty)[0].uncertainty == 0
    assert predict(sure, encoded(pixels()))[0].uncertainty == pytest.approx(0.1 / 0.75, abs=1e-3)
    (nothing,) = predict(brink, encoded(pixels()))
    assert nothing.lesions == () and nothing.uncertainty == pytest.approx(0.96, abs=1e-3)
    faint = Pipeline.open(bundle(tmp_path, classifier=False, score=0.01, name="faint"))
    assert predict(faint, encoded(pixels()))[0].uncertainty == pytest.approx(0.04, abs=1e-3)


def test_a_large_photograph_is_read_reduced_and_told_in_its_own_pixels(tmp_path: Path) -> None:
    pipeline = Pipeline.open(bundle(tmp_path))
    content = encoded(pixels(4000, 3000, ((400, 600, 1200, 1400),)), "JPEG", quality=90)
    image = decode(content, "picture")
    assert image.pixels.shape == (1500, 2000, 3) and image.size == ImageSize(4000, 3000)
    (found,) = pipeline.predict([image])
    assert near(found.lesions[0].box, PixelBox(400, 600, 1200, 1400), 65)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_those_of_the_upright_picture_whatever_the_exif_turn(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(pixels())
    backwards = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if backwards is None else upright.transpose(Image.Transpose(backwards))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(stored, "JPEG", exif=exif, quality=95), "picture")
    assert image.size == ImageSize(160, 120)
    (found,) = Pipeline.open(bundle(tmp_path)).predict([image])
    assert near(found.lesions[0].box, BOX)


def test_grey_alpha_cmyk_and_sixteen_bit_come_out_as_they_look() -> None:
    base = Image.fromarray(pixels())
    wide = (np.asarray(base.convert("L"), dtype=np.uint16) << 8) + 17
    clear = base.convert("RGBA")
    clear.putalpha(0)
    looks = {
        "grey": (encoded(base.convert("L")), np.asarray(base.convert("L").convert("RGB"))),
        "cmyk": (encoded(base.convert("CMYK"), "JPEG", quality=98), np.asarray(base)),
        "sixteen": (encoded(Image.fromarray(wide)), np.asarray(base.convert("L").convert("RGB"))),
        "palette": (encoded(base.convert("P", palette=Image.Palette.ADAPTIVE)), np.asarray(base)),
        "alpha": (encoded(clear), np.full((120, 160, 3), 255)),
        "bits": (encoded(Image.new("1", (160, 120), 1)), np.full((120, 160, 3), 255)),
    }
    for name, (content, expected) in looks.items():
        off = np.abs(decode(content, name).pixels.astype(int) - expected.astype(int))
        assert off.mean() < 2, name


def test_the_long_side_wanted_decides_the_reduction() -> None:
    content = encoded(pixels(1600, 1200), "JPEG")
    assert decode(content, "p", DecodeLimits(working_side=800)).pixels.shape == (600, 800, 3)
    assert decode(content, "p", DecodeLimits(working_side=801)).pixels.shape == (1200, 1600, 3)


def test_a_large_png_is_reduced_like_a_large_jpeg() -> None:
    content = encoded(pixels(2600, 1950))
    image = decode(content, "p")
    assert image.pixels.shape == (975, 1300, 3) and image.size == ImageSize(2600, 1950)
    assert decode(encoded(pixels(2500, 1900)), "p").pixels.shape == (1900, 2500, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_a_large_picture_is_reduced_strip_by_strip_to_what_reducing_it_whole_gives(mode: str) -> None:
    noise = np.random.default_rng(5).integers(0, 255, (150, 2603, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) << 8)
    else:
        picture = picture.convert(mode)
    content = encoded(picture)
    whole = decode(content, "p", DecodeLimits(working_side=4000)).pixels
    parts = decode(content, "p", DecodeLimits(working_side=1300)).pixels
    assert np.array_equal(parts, np.asarray(Image.fromarray(whole).reduce(2)))


def test_a_point_finds_the_lesion_around_it_and_no_other(tmp_path: Path) -> None:
    pipeline = Pipeline.open(bundle(tmp_path))
    image = pipeline.decode(encoded(pixels(320, 240, ((30, 40, 120, 140), (190, 80, 280, 200)))), "p")
    found = pipeline.find(image, ((70, 90), (250, 100), (150, 20)))
    assert found[0] is not None and near(found[0].box, PixelBox(30, 40, 120, 140), 6)
    assert found[1] is not None and near(found[1].box, PixelBox(190, 80, 280, 200), 6)
    assert found[2] is None


def test_what_is_too_small_for_the_whole_picture_is_seen_from_nearer(tmp_path: Path) -> None:
    pipeline = Pipeline.open(bundle(tmp_path))
    image = pipeline.decode(encoded(pixels(1280, 960, ((989, 769, 1011, 791),))), "p")
    assert pipeline.predict([image])[0].lesions == ()
    (found,) = pipeline.find(image, [(1000, 780)])
    assert found is not None and near(found.box, PixelBox(989, 769, 1011, 791), 12)


def test_the_colours_of_the_builders_differ_enough_to_matter() -> None:
    assert sum(DARK) / 3 / 255 < 0.35 < sum(SKIN) / 3 / 255


@pytest.mark.parametrize("sides", [(-20.0, 30.0), (30.0, 0.0), (float("nan"), 30.0)])
def test_a_box_that_cannot_be_drawn_is_no_detection(sides: tuple[float, float]) -> None:
    raw = np.array([[50, 50, 20, 20, 0.9], [50, 50, *sides, 0.95]], dtype=np.float32).T
    found = preprocessing.decode_detections(raw, 0.25, DetectorSpec(640), 10)
    assert found.boxes.tolist() == [[40, 40, 60, 60]]
