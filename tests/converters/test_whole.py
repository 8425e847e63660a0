from __future__ import annotations

from pathlib import Path

import pytest

from converters.whole import whole_file, whole_folder, write_whole


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "above" / "made"
    with whole_folder(target, "mark") as draft:
        (draft / "mark").write_text("1")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["made"]
    assert (target / "mark").read_text() == "1"


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="full"), whole_folder(tmp_path / "made", "mark") as draft:
        (draft / "part").write_text("1")
        raise RuntimeError("full")
    assert not list(tmp_path.iterdir())


def test_the_folder_of_whoever_was_first_stays(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with whole_folder(target, "mark") as second:
        (second / "mark").write_text("second")
        with whole_folder(target, "mark") as first:
            (first / "mark").write_text("first")
    assert (target / "mark").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_an_unfinished_folder_in_the_place_is_told(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "other").write_text("")
    with pytest.raises(OSError, match="not empty"), whole_folder(target, "mark") as draft:
        (draft / "mark").write_text("1")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_file_is_replaced_whole_or_kept(tmp_path: Path) -> None:
    target = tmp_path / "above" / "file"
    write_whole(target, b"old")
    with pytest.raises(RuntimeError), whole_file(target) as draft:
        draft.write_bytes(b"ne")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["file"]
