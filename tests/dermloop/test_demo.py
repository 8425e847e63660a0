"""Synthetic pictures: the same numbers give the same bytes, the truth fits to the pixel, and they say what they are."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converters import images, taxonomy
from converters.annotation import Finding
from converters.geometry import ImageSize, RleMask
from dermloop.demo import DemoOptions, View, render, write_demo

SMALL = DemoOptions(size=160)


def test_the_same_numbers_draw_the_same_bytes() -> None:
    first, second = render(5, 11, SMALL), render(5, 11, SMALL)
    assert first.content == second.content
    assert first.truth == second.truth and first.record == second.record


def test_another_seed_or_index_draws_another_picture() -> None:
    digests = {render(seed, index, SMALL).record.image_id for seed in (1, 2) for index in range(6)}
    assert len(digests) == 12


@pytest.mark.parametrize("view", list(View))
def test_each_box_is_the_tight_frame_of_its_mask(view: View) -> None:
    for index in range(8):
        picture = render(3, index, DemoOptions(size=160, view=view))
        for lesion in picture.truth.lesions:
            assert isinstance(lesion.shape, RleMask)
            assert lesion.shape.size == ImageSize(160, 160)
            assert lesion.box == lesion.shape.envelope()
            assert lesion.shape.area() > 0.5 * lesion.box.area


def test_a_lesion_stands_out_from_the_skin_around_it_on_every_skin_type() -> None:
    for code in taxonomy.read().codes:
        for skin_type in range(1, 7):
            picture = render(2, skin_type, DemoOptions(200, View.DERMOSCOPY, skin_type, code, 1))
            shape = picture.truth.lesions[0].shape
            assert isinstance(shape, RleMask)
            mask = shape.to_array()
            around = np.hypot(*np.mgrid[-1:1:200j, -1:1:200j]) < 0.8
            inside = picture.pixels[mask].astype(float)
            outside = picture.pixels[around & ~mask].astype(float)
            change = np.abs(inside.mean(0) - outside.mean(0)).max() + np.abs(inside.std(0) - outside.std(0)).max()
            assert change > 8, (code, skin_type, change)


def test_no_lesion_is_hidden_by_the_rim_of_the_dermoscope_or_by_a_ruler() -> None:
    for index in range(40):
        picture = render(7, index, DemoOptions(160, skin_type=2, diagnosis="nv"))
        for lesion in picture.truth.lesions:
            assert isinstance(lesion.shape, RleMask)
            seen = picture.pixels[lesion.shape.to_array()].astype(float).mean(axis=1)
            assert (seen < 12).mean() < 0.1, f"picture {index} hides a lesion behind the rim"
            assert (seen > 215).mean() < 0.1, f"picture {index} hides a lesion behind a ruler"


def test_a_series_has_every_diagnosis_view_skin_type_and_number_of_lesions() -> None:
    series = [render(1, index, DemoOptions(size=64)) for index in range(150)]
    counts = Counter(len(picture.truth.lesions) for picture in series)
    seen = {lesion.diagnosis for picture in series for lesion in picture.truth.lesions}
    assert seen == set(taxonomy.read().codes)
    assert set(counts) == {0, 1, 2, 3}
    assert {picture.record.device for picture in series} == {"dermoscopy", "clinical"}
    assert {picture.record.skin_type for picture in series} == {1, 2, 3, 4, 5, 6}


def test_some_patients_and_some_lesions_are_seen_more_than_once_with_the_same_facts() -> None:
    series = [render(1, index, DemoOptions(size=64)) for index in range(60)]
    subjects = Counter(picture.record.patient_id for picture in series)
    facts = {(p.record.patient_id, p.record.age, p.record.sex, p.record.skin_type) for p in series}
    lesions = {
        (identity, lesion.diagnosis)
        for picture in series
        for identity, lesion in zip(picture.lesion_ids, picture.truth.lesions, strict=True)
    }
    repeated = Counter(identity for picture in series for identity in picture.lesion_ids)
    assert max(subjects.values()) == 3 and min(subjects.values()) == 1
    assert len(facts) == len(subjects)
    assert max(repeated.values()) > 1
    assert len(lesions) == len(repeated)


def test_a_picture_without_lesions_is_confirmed_lesion_free() -> None:
    picture = render(1, 0, DemoOptions(size=96, lesions=0))
    assert picture.truth.finding is Finding.LESION_FREE and picture.truth.lesions == ()


def test_every_picture_says_that_it_is_synthetic() -> None:
    picture = render(1, 0, SMALL)
    assert picture.record.synthetic and picture.record.source == "synthetic"
    assert picture.name.startswith("synthetic-")


def test_the_bytes_pass_the_border_unchanged() -> None:
    picture = render(1, 2, SMALL)
    cleaned = images.clean(picture.content, picture.name)
    assert cleaned.image_id == picture.record.image_id
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture.content))).shape, (160, 160, 3))


def test_a_written_folder_holds_images_masks_and_one_row_for_each_lesion(tmp_path: Path) -> None:
    table = write_demo(tmp_path, 12, seed=4, options=SMALL)
    with table.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    drawn = [render(4, index, SMALL) for index in range(12)]
    assert len(rows) == sum(max(1, len(picture.truth.lesions)) for picture in drawn)
    assert {row["synthetic"] for row in rows} == {"true"}
    assert len({row["image"] for row in rows}) == 12
    for row in rows:
        assert (tmp_path / row["image"]).is_file()
        if row["mask"]:
            mask = RleMask.from_array(np.asarray(Image.open(tmp_path / row["mask"])) > 0).envelope()
            assert mask is not None
            box = (mask.x_min, mask.y_min, mask.width, mask.height)
            assert box == tuple(float(row[f"bbox_{side}"]) for side in "xywh")
        else:
            assert row["finding"] == "lesion-free" and row["dx"] == ""


def test_progress_is_told_for_each_picture(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_demo(tmp_path, 3, options=DemoOptions(size=64), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
