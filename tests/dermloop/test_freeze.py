"""Freezing takes what was approved, all of it, once, and moves nobody between splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_labels import annotation, lesion, stored_image

from converters import dataset, taxonomy
from converters.annotation import Annotation, ImageRecord, TruthLevel
from converters.dataset import Split
from converters.errors import DatasetError
from converters.geometry import PixelBox
from converters.images import read_image
from dermloop.freeze import FreezeReport, freeze, latest, previous_splits


def approved(home: Path, numbers: range) -> list[tuple[ImageRecord, list[Annotation]]]:
    records = [stored_image(home, number, patient_id=f"p{number // 2}") for number in numbers]
    return [(record, [annotation(record.image_id)]) for record in records]


def frozen(home: Path, numbers: range) -> FreezeReport:
    return freeze(approved(home, numbers), home, taxonomy.read())


def test_the_frozen_version_reads_back_equal_and_verifies(tmp_path: Path) -> None:
    report = frozen(tmp_path, range(20))
    again = dataset.load(report.version.root)
    again.verify()
    assert again == report.version
    assert report.images == 20
    assert all(count for _, count in report.splits)


def test_freezing_the_same_labels_twice_is_one_version(tmp_path: Path) -> None:
    assert frozen(tmp_path, range(20)).version == frozen(tmp_path, range(20)).version
    assert latest(tmp_path / "datasets").root.parent == tmp_path / "datasets"


def test_new_images_move_nobody_between_splits(tmp_path: Path) -> None:
    frozen(tmp_path, range(20))
    before = previous_splits(tmp_path / "datasets")
    frozen(tmp_path, range(40))
    after = previous_splits(tmp_path / "datasets")
    assert {image: after[image] for image in before} == before
    assert len(after) == 40


def test_pictures_of_one_patient_stay_together(tmp_path: Path) -> None:
    version = frozen(tmp_path, range(30)).version
    by_patient: dict[str | None, set[Split | None]] = {}
    for item in version.dataset.items:
        by_patient.setdefault(item.record.patient_id, set()).add(item.split)
    assert all(len(splits) == 1 for splits in by_patient.values())


def test_two_qa_readers_who_disagree_leave_the_image_out_with_a_reason(tmp_path: Path) -> None:
    pairs = approved(tmp_path, range(10))
    record, answers = pairs[0]
    other = annotation(record.image_id, (lesion("mel", severity="high"),), author="second@example.org")
    pairs[0] = (record, [*answers, other])
    report = freeze(pairs, tmp_path, taxonomy.read())
    assert report.images == 9
    assert record.image_id in report.ambiguous[0]


def test_labels_below_the_declared_level_are_no_truth(tmp_path: Path) -> None:
    pairs = [
        (record, [replace(answer, level=TruthLevel.TECHNICIAN) for answer in found])
        for record, found in approved(tmp_path, range(3))
    ]
    with pytest.raises(DatasetError, match="at least one approved image"):
        freeze(pairs, tmp_path, taxonomy.read())


def test_an_image_changed_after_ingest_refuses_the_freeze(tmp_path: Path) -> None:
    pairs = approved(tmp_path, range(3))
    (tmp_path / pairs[0][0].uri).write_bytes(b"changed")
    with pytest.raises(DatasetError, match="Ingest the image again"):
        freeze(pairs, tmp_path, taxonomy.read())


def test_regions_that_anybody_marked_are_black_in_the_frozen_copy_and_only_there(tmp_path: Path) -> None:
    pairs = approved(tmp_path, range(10))
    record, (truth,) = pairs[0]
    box = PixelBox(4, 6, 20, 30)
    junior = replace(truth, level=TruthLevel.TECHNICIAN, author="tim", redactions=(box,))
    before = (tmp_path / record.uri).read_bytes()
    report = freeze([(record, [truth, junior]), *pairs[1:]], tmp_path, taxonomy.read())
    report.version.verify()
    (item,) = (item for item in report.version.dataset.items if item.record.image_id == record.image_id)
    pixels = np.asarray(read_image(report.version.path(item)))
    assert not pixels[6:30, 4:20].any()
    assert pixels[40:, 40:].any()
    assert item.truth.redactions == ()
    assert (tmp_path / record.uri).read_bytes() == before
    assert dataset.load(report.version.root) == report.version
    again = dataset.freeze(
        report.version.dataset,
        {item.record.image_id: report.version.path(item) for item in report.version.dataset.items},
        tmp_path / "again",
        report.version.settings,
    )
    assert again.digest == report.version.digest


def test_a_redacted_image_stays_in_its_split(tmp_path: Path) -> None:
    frozen(tmp_path, range(10))
    before = previous_splits(tmp_path / "datasets")
    pairs = [
        (record, [replace(truth, redactions=(PixelBox(0, 0, 9, 9),))])
        for record, (truth,) in approved(tmp_path, range(10))
    ]
    freeze(pairs, tmp_path, taxonomy.read())
    assert previous_splits(tmp_path / "datasets") == before
