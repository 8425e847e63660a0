"""Cross-validation deals whole patients and never touches the locked test split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders_training import version_of

from converters.dataset import Dataset, DatasetVersion, Split
from training.errors import DataError
from training.folds import folds


def with_patients(version: DatasetVersion, each: int) -> DatasetVersion:
    items = [
        replace(item, record=replace(item.record, patient_id=f"patient-{number // each}"))
        for number, item in enumerate(version.dataset.items)
        if item.split is not Split.TEST
    ]
    items += version.dataset.only(Split.TEST)
    return replace(version, dataset=Dataset(version.dataset.taxonomy, tuple(items)))


def test_every_image_is_validated_once_and_no_patient_is_on_both_sides(tmp_path: Path) -> None:
    version = with_patients(version_of(tmp_path, {Split.TRAIN: 10, Split.VAL: 5, Split.TEST: 4}), each=3)
    parts = folds(version, 3)
    validated = [item.record.image_id for part in parts for item in part.dataset.only(Split.VAL)]
    assert len(validated) == len(set(validated)) == 15
    for part in parts:
        sides = [{item.record.patient_id for item in part.dataset.only(split)} for split in (Split.TRAIN, Split.VAL)]
        assert not sides[0] & sides[1]
        assert part.dataset.only(Split.TEST) == version.dataset.only(Split.TEST)


def test_the_variants_have_digests_of_their_own_and_the_seed_decides(tmp_path: Path) -> None:
    version = version_of(tmp_path, {Split.TRAIN: 8, Split.VAL: 4})
    digests = [part.digest for seed in (0, 1) for part in folds(version, 3, seed)]
    assert len({*digests, version.digest}) == 7
    assert [part.digest for part in folds(version, 3)] == digests[:3]


def test_more_folds_than_patients_are_refused(tmp_path: Path) -> None:
    version = with_patients(version_of(tmp_path, {Split.TRAIN: 6}), each=6)
    with pytest.raises(DataError, match="Choose fewer folds"):
        folds(version, 2)
