"""Trainers see what serving sees, and only what somebody has really answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_serving import bundle
from builders_training import TAXONOMY, drawn, item_of, served_version, version_of
from PIL import Image

from converters import dataset
from converters.annotation import Finding, Lesion
from converters.dataset import Dataset, DatasetItem, DatasetVersion, Split, freeze
from converters.geometry import PixelBox
from converters.taxonomy import Target
from training import datasets
from training.errors import DataError


def labels(folder: Path, split: Split) -> list[str]:
    return [path.read_text() for path in sorted((folder / "labels" / split.value).glob("*.txt"))]


def frozen(folder: Path, items: list[tuple[bytes, DatasetItem]]) -> DatasetVersion:
    sources = {}
    for content, item in items:
        path = folder / f"{item.record.image_id}.png"
        path.write_bytes(content)
        sources[item.record.image_id] = path
    return freeze(Dataset(TAXONOMY, tuple(item for _, item in items)), sources, folder / "datasets", {})


def test_boxes_land_where_serving_would_put_them(tmp_path: Path) -> None:
    version = version_of(tmp_path, {Split.TRAIN: 3, Split.VAL: 1})
    folder = datasets.yolo_folder(version, tmp_path / "cache", 48)
    item = version.dataset.only(Split.VAL)[0]
    [text] = labels(folder.data_file.parent, Split.VAL)
    kind, x, y, w, h = (float(word) for word in text.split())
    box = item.truth.lesions[0].box
    assert (kind, x, y) == (0, pytest.approx(box.centre[0] / 96, abs=1e-5), pytest.approx(box.centre[1] / 96, abs=1e-5))
    assert (w, h) == (pytest.approx(box.width / 96, abs=1e-5), pytest.approx(box.height / 96, abs=1e-5))
    [picture] = (folder.data_file.parent / "images" / "val").iterdir()
    with Image.open(picture) as square:
        assert square.size == (48, 48)


def test_lesion_free_is_background_and_unlooked_at_is_left_out(tmp_path: Path) -> None:
    findings = (None, Finding.LESION_FREE, Finding.UNGRADABLE, Finding.NOT_LOOKED_AT)
    items = []
    for number, finding in enumerate(findings):
        content, box = drawn(number, "nv" if finding is None else None)
        items.append((content, item_of(content, box, "nv", Split.TRAIN, finding)))
    content, box = drawn(9)
    items.append((content, item_of(content, box, "nv", Split.VAL)))
    folder = datasets.yolo_folder(frozen(tmp_path, items), tmp_path / "cache", 48)
    assert (folder.images, folder.lesions, folder.background, folder.skipped) == (3, 2, 1, 2)
    assert sorted(len(text.splitlines()) for text in labels(folder.data_file.parent, Split.TRAIN)) == [0, 1]


def test_a_lesion_without_an_outline_is_the_ellipse_in_its_box(tmp_path: Path) -> None:
    version = version_of(tmp_path, {Split.TRAIN: 1, Split.VAL: 1})
    boxed, rounded = (
        labels(datasets.yolo_folder(version, tmp_path / "cache", 48, outlines=outlines).data_file.parent, Split.TRAIN)
        for outlines in (False, True)
    )
    x, y, width, height = (float(word) for word in boxed[0].split()[1:])
    points = np.array([float(word) for word in rounded[0].split()[1:]]).reshape(-1, 2)
    assert np.ptp(points, axis=0) == pytest.approx([width, height], abs=1e-5)
    radii = (((points - [x, y]) / [width / 2, height / 2]) ** 2).sum(axis=1)
    assert radii == pytest.approx(np.ones(24), abs=1e-3)


def test_a_second_call_reuses_the_folder(tmp_path: Path) -> None:
    version = version_of(tmp_path, {Split.TRAIN: 2, Split.VAL: 1})
    first = datasets.yolo_folder(version, tmp_path / "cache", 48)
    mark = first.data_file.stat().st_mtime_ns
    assert datasets.yolo_folder(version, tmp_path / "cache", 48) == first
    assert first.data_file.stat().st_mtime_ns == mark


def test_a_split_without_lesions_is_refused_with_a_cure(tmp_path: Path) -> None:
    version = version_of(tmp_path, {Split.TRAIN: 2})
    with pytest.raises(DataError, match=r"val split.*Approve more images"):
        datasets.yolo_folder(version, tmp_path / "cache", 48)


def test_crops_show_the_lesion_with_its_class_and_are_cut_once(tmp_path: Path) -> None:
    version = version_of(tmp_path, {Split.TRAIN: 6})
    options = {"size": 32, "padding": 0.15, "cache": tmp_path / "cache"}
    found = datasets.crops(version, Split.TRAIN, Target.SEVERITY, **options)
    assert found.pixels.shape == (6, 32, 32, 3)
    by_id = {item.record.image_id: item for item in version.dataset.items}
    expected = [
        TAXONOMY.class_index(TAXONOMY.resolve(by_id[i].truth.lesions[0].diagnosis or ""), Target.SEVERITY)
        for i in found.image_ids
    ]
    assert found.labels.tolist() == expected
    for item in version.dataset.items:
        version.path(item).unlink()
    again = datasets.crops(version, Split.TRAIN, Target.SEVERITY, **options)
    assert np.array_equal(again.pixels, found.pixels)


def test_an_image_deleted_or_changed_after_the_freeze_is_named(tmp_path: Path) -> None:
    version = version_of(tmp_path, {Split.TRAIN: 1})
    [item] = version.dataset.items
    path = version.path(item)
    path.unlink()
    with pytest.raises(DataError, match=path.name):
        datasets.read_decoded(version, item)
    path.write_bytes(b"other")
    with pytest.raises(DataError, match="digest"):
        datasets.read_decoded(version, item)


def test_an_open_diagnosis_teaches_its_severity_but_no_diagnosis() -> None:
    open_lesion = Lesion(PixelBox(0, 0, 1, 1), severity="high")
    assert datasets.class_index(open_lesion, Target.SEVERITY, TAXONOMY) == 2
    assert datasets.class_index(open_lesion, Target.DIAGNOSIS, TAXONOMY) is None
    assert datasets.class_index(open_lesion, Target.MALIGNANCY, TAXONOMY) == 1
    assert datasets.class_index(replace(open_lesion, severity=None), Target.SEVERITY, TAXONOMY) is None


def test_every_file_of_the_cache_is_named_by_the_frozen_content(tmp_path: Path) -> None:
    one = version_of(tmp_path / "one", {Split.TRAIN: 2, Split.VAL: 1})
    other = version_of(tmp_path / "other", {Split.TRAIN: 2, Split.VAL: 1}, seed=1)
    cache = tmp_path / "cache"
    folders = {datasets.yolo_folder(version, cache, 48).data_file for version in (one, other)}
    assert len(folders) == 2
    assert dataset.load(one.root).digest == one.digest


def test_crops_are_cut_where_a_served_detector_finds_the_lesion_and_at_the_true_box_where_it_does_not(
    tmp_path: Path,
) -> None:
    version, finder = served_version(tmp_path), bundle(tmp_path, classifier=False)
    blind = bundle(tmp_path / "blind", classifier=False, score=0.1)
    options = {"size": 32, "padding": 0.15, "cache": tmp_path / "cache"}
    plain = datasets.crops(version, Split.TEST, Target.SEVERITY, **options)
    missed = datasets.crops(version, Split.TEST, Target.SEVERITY, finder=blind, **options)
    assert np.array_equal(missed.pixels, plain.pixels)
    found = datasets.crops(version, Split.TEST, Target.SEVERITY, finder=finder, **options)
    assert (found.image_ids, found.labels.tolist()) == (plain.image_ids, plain.labels.tolist())
    boxes = datasets.found_boxes(version, Split.TEST, finder)
    for item in version.dataset.only(Split.TEST):
        for lesion, box in zip(item.truth.lesions, boxes.get(item.record.image_id, ()), strict=True):
            assert lesion.box.iou(box) > 0.9
    assert len(list((tmp_path / "cache").glob("crops-*.npz"))) == 3


def test_crops_stay_where_only_the_classifier_beside_the_detector_changes(tmp_path: Path) -> None:
    version, cache = served_version(tmp_path), tmp_path / "cache"
    options = {"size": 32, "padding": 0.15, "cache": cache}
    first, other = bundle(tmp_path), bundle(tmp_path, operating_point=0.4)
    assert first.version != other.version
    for finder in (first, other):
        datasets.crops(version, Split.TEST, Target.SEVERITY, finder=finder, **options)
    assert len(list(cache.glob("crops-*.npz"))) == 1
    assert first.detector
    bolder = replace(first, detector=replace(first.detector, score_threshold=0.5))
    datasets.crops(version, Split.TEST, Target.SEVERITY, finder=bolder, **options)
    assert len(list(cache.glob("crops-*.npz"))) == 2
