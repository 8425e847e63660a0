"""Pieces of files end up whole in the draft, however many files and folders there are."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from converters.errors import DatasetError
from converters.formats.contract import Piece
from converters.output import OutputFolder, open_output


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def added(target: Path, pieces: list[tuple[str, bytes]]) -> None:
    with open_output(target, "a fingerprint") as output:
        for path, content in pieces:
            output.add(Piece(path, content))
        output.finish()


def test_a_file_that_gets_more_after_many_others_is_appended_to(tmp_path: Path) -> None:
    others = [(f"labels/{number}.txt", b"x\n") for number in range(200)]
    more = ("labels/first.txt", b"again\n")
    added(tmp_path / "out", [("labels/first.txt", b"once\n"), *others, more, more, *others])
    assert (tmp_path / "out/labels/first.txt").read_bytes() == b"once\nagain\nagain\n"
    assert {path.read_bytes() for path in tmp_path.glob("out/labels/[0-9]*.txt")} == {b"x\nx\n"}


def test_files_in_more_folders_than_a_process_may_keep_open_are_written(tmp_path: Path) -> None:
    before = open_files()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 100, limits[1]))
    try:
        added(tmp_path / "out", [(f"{number % 300}/{number}.txt", b"%d" % number) for number in range(600)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("out/*/*.txt")} == {
        f"{number}.txt": b"%d" % number for number in range(600)
    }
    assert open_files() == before


@pytest.mark.parametrize("path", ["../beside.txt", "/tmp/elsewhere/a.txt", "a/../../b/c.txt"])
def test_a_path_out_of_the_target_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DatasetError, match="a path inside the target"):
        added(tmp_path / "deep/out", [(path, b"")])
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == []


def test_what_the_disk_refuses_is_named(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path / "out", tmp_path, tmp_path / "left")
    (tmp_path / "labels/a.txt").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as caught:
        output.add(Piece("labels/a.txt", b"x"))
    output.close()
    assert caught.value.filename == str(tmp_path / "labels/a.txt")
