"""Freezing takes what was approved, all of it, once, and moves nobody between splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_labels import annotation, lesion, stored_image
from PIL import Image

from converters import dataset, taxonomy
from converters.annotation import Annotation, Confirmation, ImageRecord, TruthLevel
from converters.dataset import Split
from converters.errors import DatasetError
from converters.geometry import ImageSize, PixelBox
from converters.images import read_image
from converters.truth import TruthPolicy
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


def test_the_locked_test_split_takes_in_labels_of_the_declared_strength_alone(tmp_path: Path) -> None:
    pairs = approved(tmp_path, range(60))
    strong = {record.image_id for record, _ in pairs[::2]}
    levels = {True: TruthLevel.CONSENSUS, False: TruthLevel.QA}
    pairs = [(record, [replace(said[0], level=levels[record.image_id in strong])]) for record, said in pairs]
    pairs = [(replace(record, patient_id=None), said) for record, said in pairs]
    report = freeze(pairs, tmp_path, taxonomy.read(), test_truth=TruthLevel.CONSENSUS)
    tested = {item.record.image_id for item in report.version.dataset.only(Split.TEST)}
    assert tested
    assert tested <= strong
    assert dict(report.splits)["val"] > 0


def test_a_patient_with_one_weak_label_stays_out_of_the_test_split_whole(tmp_path: Path) -> None:
    pairs = approved(tmp_path, range(40))
    weak = {record.image_id for record, _ in pairs[::2]}
    levels = {True: TruthLevel.DERMATOLOGIST, False: TruthLevel.CONSENSUS}
    pairs = [(record, [replace(said[0], level=levels[record.image_id in weak])]) for record, said in pairs]
    policy = TruthPolicy(minimum=TruthLevel.DERMATOLOGIST)
    report = freeze(pairs, tmp_path, taxonomy.read(), policy, test_truth=TruthLevel.CONSENSUS)
    assert report.version.dataset.only(Split.TEST) == ()


def test_what_histopathology_confirmed_is_strong_enough(tmp_path: Path) -> None:
    pairs = [
        (replace(record, confirmation=Confirmation.HISTOPATHOLOGY), said)
        for record, said in approved(tmp_path, range(40))
    ]
    report = freeze(pairs, tmp_path, taxonomy.read(), test_truth=TruthLevel.HISTOPATHOLOGY)
    assert report.version.dataset.only(Split.TEST)


def test_look_alikes_of_different_patients_stay_in_one_split(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pairs = [patchwork(tmp_path, number, shade) for number in range(30) for shade in (1.0, 0.97)]
    said = [(record, [annotation(record.image_id)]) for record in pairs]
    placed = previous_splits(freeze(said, tmp_path, taxonomy.read()).version.root.parent)
    assert len(set(placed.values())) == 3
    for one, twin in zip(pairs[::2], pairs[1::2], strict=True):
        assert placed[one.image_id] is placed[twin.image_id]


def patchwork(home: Path, number: int, shade: float) -> ImageRecord:
    """A picture with structure of its own, in some brightness, each of another patient."""
    patches = np.random.default_rng(number).uniform(20, 230, (8, 8, 3)) * shade
    path = home / "images" / f"{number}-{shade}.png"
    Image.fromarray(patches.astype(np.uint8)).resize((96, 80), Image.Resampling.BICUBIC).save(path)
    record = stored_image(home, number, patient_id=f"{number}-{shade}")
    return replace(record, image_id=dataset.file_digest(path), uri=f"images/{path.name}", size=ImageSize(96, 80))
