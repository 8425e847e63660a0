"""Splits that no patient crosses, that keep their shares, and in which nobody ever moves."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from builders_converters import TAXONOMY, a_dataset, an_item
from hypothesis import given, settings
from hypothesis import strategies as st

from converters import splits
from converters.dataset import Dataset, DatasetItem, Split
from converters.errors import DatasetError
from converters.splits import SplitPolicy


def some_items(count: int, patients: int | None = None) -> list[DatasetItem]:
    codes = TAXONOMY.codes
    return [
        an_item(
            f"{n}.jpg",
            codes[n * n % 7],
            patient_id=f"P{n % patients}" if patients else None,
            skin_type=n % 6 + 1,
        )
        for n in range(count)
    ]


def places(dataset: Dataset) -> dict[str, Split]:
    return {item.record.image_id: item.split for item in dataset.items if item.split}


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 120), st.integers(1, 40), st.integers(0, 5))
def test_no_patient_crosses_and_the_result_does_not_depend_on_order(count: int, patients: int, seed: int) -> None:
    items = some_items(count, patients)
    found = splits.split(a_dataset(*items), SplitPolicy(seed=seed))
    parts = Counter((item.record.patient_id, item.split) for item in found.items)
    assert len({patient for patient, _ in parts}) == len(parts)
    assert places(splits.split(a_dataset(*reversed(items)), SplitPolicy(seed=seed))) == places(found)


def test_shares_hold_even_where_every_stratum_is_rare() -> None:
    found = splits.split(a_dataset(*some_items(200)), SplitPolicy())
    counts = Counter(item.split for item in found.items)
    assert abs(counts[Split.TEST] - 30) <= 3 and abs(counts[Split.VAL] - 30) <= 3


def test_every_diagnosis_reaches_the_test_split() -> None:
    found = splits.split(a_dataset(*(an_item(f"{n}.jpg", TAXONOMY.codes[n % 7]) for n in range(210))), SplitPolicy())
    counts = Counter(item.truth.lesions[0].diagnosis for item in found.only(Split.TEST))
    assert all(3 <= counts[code] <= 6 for code in TAXONOMY.codes)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(0, 60))
def test_nobody_moves_when_images_are_added(before: int, added: int) -> None:
    items = some_items(before + added)
    old = places(splits.split(a_dataset(*items[:before]), SplitPolicy()))
    new = places(splits.split(a_dataset(*items), SplitPolicy(), previous=old))
    assert {image: new[image] for image in old} == old


def test_a_new_picture_of_a_known_patient_joins_the_patients_split() -> None:
    old, new = an_item("old.jpg", patient_id="P1"), an_item("new.jpg", patient_id="P1")
    found = splits.split(a_dataset(old, new), SplitPolicy(), previous={old.record.image_id: Split.TEST})
    assert places(found)[new.record.image_id] is Split.TEST


def test_a_picture_that_links_two_splits_is_refused() -> None:
    one, two = an_item("1.jpg", patient_id="P1"), an_item("2.jpg", lesion_id="L1")
    link = an_item("3.jpg", patient_id="P1", lesion_id="L1")
    previous = {one.record.image_id: Split.TRAIN, two.record.image_id: Split.TEST}
    with pytest.raises(DatasetError, match="one split for one patient"):
        splits.split(a_dataset(one, two, link), SplitPolicy(), previous=previous)


def test_near_duplicates_stay_together() -> None:
    items = [an_item(f"{n}.jpg") for n in range(20)]
    pairs = [(items[0].record.image_id, item.record.image_id) for item in items[1:5]]
    found = splits.split(a_dataset(*items), SplitPolicy(), near_duplicates=pairs)
    assert len({places(found)[item.record.image_id] for item in items[:5]}) == 1


def test_equal_patient_numbers_of_two_sources_are_two_patients() -> None:
    one, two = an_item("1.jpg", patient_id="7", source="A"), an_item("2.jpg", patient_id="7", source="B")
    assert len(splits.group_images([one.record, two.record])) == 2


def test_a_share_of_nought_gets_nothing() -> None:
    found = splits.split(a_dataset(*some_items(30)), SplitPolicy(0.8, 0.2, 0.0))
    assert found.only(Split.TEST) == ()


@pytest.mark.parametrize("shares", [(0.7, 0.2, 0.2), (1.2, -0.2, 0.0)])
def test_shares_that_do_not_sum_to_one_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(DatasetError, match="sum to 1"):
        SplitPolicy(*shares)


def test_folds_cover_every_item_once_and_no_patient_twice() -> None:
    items = [replace(item) for item in some_items(60, patients=20)]
    parts = splits.folds(a_dataset(*items), 5)
    assert sorted(item.record.image_id for part in parts for item in part) == sorted(i.record.image_id for i in items)
    patients = [{item.record.patient_id for item in part} for part in parts]
    assert sum(len(group) for group in patients) == 20
    assert all(9 <= len(part) <= 15 for part in parts)


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(DatasetError, match="folds"):
        splits.folds(a_dataset(*some_items(3)), 4)
