"""Frozen versions: named by content, whole or absent, and quick to notice a change."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders_converters import a_dataset, a_lesion, an_answer, an_item, picture, stored
from hypothesis import given
from hypothesis import strategies as st

from converters import dataset, manifest
from converters.annotation import Confirmation, Finding, ImageRecord, Origin, Relation, TruthLevel
from converters.dataset import Dataset, DatasetItem, Split
from converters.errors import ConversionError, DatasetError
from converters.geometry import Ellipse, ImageSize, KeyPoint, PixelBox, Polygon, RleMask, RotatedBox


def two_items(folder: Path) -> tuple[DatasetItem, ...]:
    made = [stored(folder, f"{n}.jpg", picture(seed=n), patient_id=f"P{n}") for n in range(2)]
    return tuple(replace(item, split=split) for item, split in zip(made, (Split.TRAIN, Split.TEST), strict=True))


def sources(folder: Path, *items: DatasetItem) -> dict[str, Path]:
    return {item.record.image_id: folder / item.record.original_name for item in items}


def frozen(tmp_path: Path) -> dataset.DatasetVersion:
    items = two_items(tmp_path / "in")
    return dataset.freeze(a_dataset(*items), sources(tmp_path / "in", *items), tmp_path / "out", {"seed": 0})


def test_a_frozen_version_loads_equal_and_verifies(tmp_path: Path) -> None:
    version = frozen(tmp_path)
    assert dataset.load(version.root) == version
    assert [found.digest for found in dataset.versions(tmp_path / "out")] == [version.digest]
    version.verify()


def test_the_same_content_in_another_order_gives_the_same_digest(tmp_path: Path) -> None:
    items = two_items(tmp_path / "in")
    places = sources(tmp_path / "in", *items)
    one = dataset.freeze(a_dataset(*items), places, tmp_path / "one", {})
    other = dataset.freeze(a_dataset(*reversed(items)), places, tmp_path / "two", {})
    assert one.digest == other.digest


def test_another_setting_or_label_gives_another_digest(tmp_path: Path) -> None:
    items = two_items(tmp_path / "in")
    places = sources(tmp_path / "in", *items)
    relabelled = (replace(items[0], truth=an_answer(a_lesion("mel"), image_id=items[0].record.image_id)), items[1])
    made = [(items, {}), (items, {"seed": 1}), (relabelled, {})]
    digests = {dataset.freeze(a_dataset(*i), places, tmp_path / "out", s).digest for i, s in made}
    assert len(digests) == 3


def test_the_test_splits_digest_does_not_move_when_training_images_are_added(tmp_path: Path) -> None:
    items = two_items(tmp_path / "in")
    extra = replace(stored(tmp_path / "in", "9.jpg", picture(seed=9)), split=Split.TRAIN)
    places = sources(tmp_path / "in", *items, extra)
    small = dataset.freeze(a_dataset(*items), places, tmp_path / "out", {})
    grown = dataset.freeze(a_dataset(*items, extra), places, tmp_path / "out", {})
    assert small.split_digest(Split.TEST) == grown.split_digest(Split.TEST)
    assert small.split_digest(Split.TRAIN) != grown.split_digest(Split.TRAIN)


def test_a_changed_image_a_missing_image_and_a_changed_line_are_noticed(tmp_path: Path) -> None:
    version = frozen(tmp_path)
    path = version.path(version.dataset.items[0])
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(DatasetError, match="no file"):
        version.verify()
    path.write_bytes(content + b"x")
    with pytest.raises(DatasetError, match="expected digest"):
        version.verify()
    (version.root / dataset.MANIFEST).write_bytes(b"{}\n")
    with pytest.raises(DatasetError, match="changed content"):
        dataset.load(version.root)


@pytest.mark.parametrize("header", ["[]", "{}", "{", '{"format": 1}', '{"format": 2}'])
def test_a_damaged_header_is_a_named_error(tmp_path: Path, header: str) -> None:
    version = frozen(tmp_path)
    (version.root / dataset.VERSION).write_text(header)
    with pytest.raises(DatasetError, match=version.root.name):
        dataset.load(version.root)


def test_an_item_without_split_source_or_matching_bytes_or_twice_is_refused(tmp_path: Path) -> None:
    one, two = two_items(tmp_path / "in")
    places = sources(tmp_path / "in", one, two)
    wrong = {one.record.image_id: places[two.record.image_id]}
    for items, found, reason in (
        ((replace(one, split=None),), places, "a split"),
        ((one,), {}, "an image file"),
        ((one,), wrong, "expected digest"),
        ((one, one), places, "one item"),
    ):
        with pytest.raises(DatasetError, match=reason):
            dataset.freeze(a_dataset(*items), found, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


def test_a_freeze_that_dies_leaves_no_half_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "_link", dies)
    with pytest.raises(KeyboardInterrupt):
        frozen(tmp_path)
    monkeypatch.undo()
    assert list(dataset.versions(tmp_path / "out")) == []
    assert dataset.load(frozen(tmp_path).root).dataset.items


NUMBERS = st.floats(-10, 5000, allow_nan=False)
LENGTHS = st.floats(0, 500)
WORDS = st.text(max_size=8)
PAIRS = st.lists(st.tuples(WORDS, WORDS), max_size=2).map(tuple)
RINGS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=5).map(tuple)
BOXES = st.builds(lambda x, y, w, h: PixelBox(x, y, x + w, y + h), NUMBERS, NUMBERS, LENGTHS, LENGTHS)
SHAPES = st.one_of(
    BOXES,
    st.builds(RotatedBox, NUMBERS, NUMBERS, LENGTHS, LENGTHS, NUMBERS),
    st.builds(Ellipse, NUMBERS, NUMBERS, LENGTHS, LENGTHS, NUMBERS),
    st.builds(Polygon, RINGS, st.lists(RINGS, max_size=1).map(tuple)),
    st.just(RleMask(ImageSize(3, 2), (1, 2, 3))),
)
LESIONS = st.builds(
    a_lesion,
    st.sampled_from([None, "nv", "mel"]),
    BOXES,
    score=st.none() | st.floats(0, 1),
    shape=st.none() | SHAPES,
    keypoints=st.lists(st.builds(KeyPoint, NUMBERS, NUMBERS, WORDS, st.booleans()), max_size=2).map(tuple),
    region_id=st.none() | WORDS,
    origin=st.sampled_from(Origin),
    probabilities=st.lists(st.tuples(WORDS, st.floats(0, 1)), max_size=2).map(tuple),
    attributes=PAIRS,
)
ANSWERS = st.builds(
    lambda lesions, **facts: an_answer(*lesions, **facts),
    st.lists(LESIONS, max_size=2),
    finding=st.sampled_from(Finding),
    level=st.sampled_from(TruthLevel),
    created_at=st.none() | st.datetimes(timezones=st.just(UTC), min_value=datetime(1990, 1, 1)),
    model_version=st.none() | WORDS,
    draft=st.booleans(),
    answers=PAIRS,
    redactions=st.lists(SHAPES, max_size=1).map(tuple),
    relations=st.lists(
        st.builds(Relation, WORDS, WORDS, WORDS, st.lists(WORDS, max_size=2).map(tuple)), max_size=1
    ).map(tuple),
)
RECORDS = st.builds(
    ImageRecord,
    WORDS,
    WORDS,
    st.just(ImageSize(3, 2)),
    age=st.none() | st.floats(0, 120),
    skin_type=st.none() | st.integers(1, 6),
    confirmation=st.sampled_from(Confirmation),
    consent=st.none() | st.booleans(),
    synthetic=st.booleans(),
    extra=PAIRS,
)


@given(st.builds(DatasetItem, RECORDS, ANSWERS, st.none() | st.sampled_from(Split)))
def test_every_item_reads_back_equal_from_its_line_and_writes_the_same_bytes_again(item: DatasetItem) -> None:
    line = dataset.encode_item(item)
    back = dataset.decode_line(line, "line 1")
    assert back == item
    assert dataset.encode_item(back) == line


@given(st.data())
def test_a_mutated_line_is_refused_by_name_or_read(data: st.DataObject) -> None:
    row = json.loads(dataset.encode_item(an_item()))
    part = data.draw(st.sampled_from([row["image"], row["truth"], row["truth"]["lesions"][0], row]))
    name = data.draw(st.sampled_from(sorted(part)))
    junk = (
        st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=5) | st.just({"kind": "box"})
    )
    part[name] = data.draw(junk)
    try:
        found = dataset.decode_line(json.dumps(row).encode(), "line 1")
    except ConversionError:
        return
    assert isinstance(found, DatasetItem)


def test_a_line_that_is_no_json_names_its_place() -> None:
    with pytest.raises(DatasetError, match="manifest, line 3"):
        dataset.decode_line(b"{nonsense", "manifest, line 3")
    with pytest.raises(DatasetError):
        manifest.decode_record([])  # type: ignore[arg-type]


@given(st.datetimes(timezones=st.none() | st.just(UTC) | st.timezones()))
def test_moments_are_written_as_iso_8601_says(moment: datetime) -> None:
    answer = replace(an_answer(), created_at=moment)
    assert manifest.encode_answer(answer)["created_at"] == moment.isoformat()


def test_only_gives_the_items_of_one_split() -> None:
    items = [replace(an_item(f"{n}.jpg"), split=split) for n, split in enumerate(Split)]
    assert Dataset(a_dataset().taxonomy, tuple(items)).only(Split.VAL) == (items[1],)
