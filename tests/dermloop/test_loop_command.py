"""What the loop plays with, and what it may throw away."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders_labels import stored_image

from converters.formats.metadata_csv import read_rows
from dermloop.errors import LoopError
from dermloop.home import Home
from dermloop.loop.command import LoopRequest, begin_afresh, material
from dermloop.loop.run import read_truths
from dermloop.loop.tiers import left_open


def test_a_folder_that_no_loop_made_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("precious")
    with pytest.raises(LoopError, match="--no-fresh"):
        begin_afresh(Home(tmp_path))
    assert (tmp_path / "thesis.docx").read_text() == "precious"


def test_an_earlier_loop_is_cleared_away(tmp_path: Path) -> None:
    home = Home(tmp_path / "loop")
    home.root.mkdir()
    (home.root / "made-by-dermloop-loop").touch()
    (home.root / "review.db").touch()
    begin_afresh(home)
    assert not home.root.exists()


def test_truth_without_images_names_the_missing_option(tmp_path: Path) -> None:
    with pytest.raises(LoopError, match="--images"):
        material(LoopRequest(truth=tmp_path / "metadata.csv"), Home(tmp_path))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoopError, match="--images"):
        material(LoopRequest(images=tmp_path / "nowhere"), Home(tmp_path))


def test_images_without_a_table_ask_for_one(tmp_path: Path) -> None:
    with pytest.raises(LoopError, match="--truth"):
        material(LoopRequest(images=tmp_path), Home(tmp_path))


def test_the_table_beside_the_images_is_found(tmp_path: Path) -> None:
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "metadata.csv").touch()
    images, table = material(LoopRequest(images=tmp_path / "set" / "images"), Home(tmp_path))
    assert (images, table) == (tmp_path / "set" / "images", tmp_path / "set" / "metadata.csv")


def test_only_images_with_boxes_or_a_finding_are_played(tmp_path: Path) -> None:
    records = {record.image_id: record for record in (stored_image(tmp_path, n) for n in range(4))}
    boxed, free, *_ = records
    table = tmp_path / "metadata.csv"
    table.write_text(
        "image,dx,finding,bbox_x,bbox_y,bbox_w,bbox_h\n"
        "0.png,mel,,1,2,30,40\n1.png,,lesion-free,,,,\n2.png,nv,,,,,\n3.png,,,,,,\n"
    )
    truths = read_truths(read_rows(table), records)
    assert set(truths) == {boxed, free}
    assert truths[boxed].lesions[0].diagnosis == "mel"


def test_some_images_are_left_for_the_next_model_and_the_seed_says_which() -> None:
    images = [f"image-{n}" for n in range(40)]
    assert left_open(images, 0.15, 1) == left_open(reversed(images), 0.15, 1)
    assert len(left_open(images, 0.15, 1)) == 6
    assert len(left_open(images, 0.0, 1)) == 3
