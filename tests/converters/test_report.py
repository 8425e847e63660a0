"""What a conversion says of itself: counts of what the target holds, every failure, the rest by what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders_converters import a_lesion, an_answer, an_item
from builders_formats import converted, with_bytes
from builders_tasks import a_choice, a_region, a_task, an_annotation, an_export
from typer.testing import CliRunner

from converters.cli import app
from converters.convert import NothingWrittenError
from converters.errors import DatasetError
from converters.formats.table import find
from converters.geometry import PixelBox
from converters.report import Entry, Kind, ledger


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_failures_stand_singly_and_other_entries_by_what_they_say() -> None:
    kept = [Entry(Kind.EXPECTED, f"{n}.jpg", f"lesion {n} (open (high)) shape", "RleMask", "kept as box") for n in "12"]
    skipped = Entry(Kind.SKIPPED, "3.jpg", "truth", "s3://b/3.jpg", "skipped by its reader")
    lost = [Entry(Kind.LOST, f"{n}.jpg", "lesion 1 (mel)", "[0, 0, 1, 1]", "is gone") for n in range(22)]
    lines = list(ledger([*kept, skipped, *lost]))
    assert lines[0] == "  lost      0.jpg: lesion 1 (mel) [0, 0, 1, 1]: is gone"
    assert lines[20:] == [
        "  … 2 more failures; --report FILE keeps them all",
        "  expected  2 × shape RleMask: kept as box (1.jpg, …)",
        "  skipped   1 × skipped by its reader (3.jpg)",
    ]


def test_the_report_counts_what_the_target_holds(tmp_path: Path) -> None:
    partly = an_answer(a_lesion("mel", PixelBox(1, 2, 30, 40)), a_lesion(None, PixelBox(50, 2, 80, 40)))
    report = converted((replace(an_item(), truth=partly),), find("yolo"), tmp_path / "out", allow_loss=True)
    assert (report.images, report.lesions, report.classes) == (1, 1, {"mel": 1})
    assert [entry.reason for entry in report.failures] == [
        "is gone: it has no diagnosis, and the format writes diagnoses only"
    ]


@pytest.mark.parametrize("name", ["yolo-classify", "ground-truth-classes"])
def test_an_image_of_several_diagnoses_says_why_it_has_no_class(tmp_path: Path, name: str) -> None:
    both = an_answer(a_lesion("mel", PixelBox(1, 2, 30, 40)), a_lesion("nv", PixelBox(50, 2, 80, 40)))
    items = with_bytes((replace(an_item("a.png"), truth=both), an_item("b.png")), tmp_path / "in")
    report = converted(items, find(name), tmp_path / "out", allow_loss=True)
    (lost,) = report.failures
    assert (lost.item, lost.value) == ("a.png", "of 2 lesions") and "several diagnoses" in lost.reason
    assert report.images == 1


def test_a_failed_conversion_says_that_nothing_was_written(tmp_path: Path) -> None:
    free = a_task(an_annotation(a_choice("finding", "Lesion-free")), image="s3://d/b.jpg")
    path = an_export(tmp_path, a_task(an_annotation(a_region("Wart"))), free)
    failed = run("convert", path, tmp_path / "out", "--to", "yolo")
    assert failed.exit_code == 1 and "label-studio → yolo: NOTHING WRITTEN of 0 images" in failed.stdout
    as_json = json.loads(run("convert", path, tmp_path / "out", "--to", "yolo", "--json").stdout)
    assert as_json["written"] is False and as_json["counts"]["refused"] == 2


def test_a_source_in_which_nothing_can_be_read_is_not_called_unannotated(tmp_path: Path) -> None:
    path = an_export(tmp_path, a_task(an_annotation(a_region())))
    failed = run("convert", path, tmp_path / "out", "--to", "yolo", "--from", "masks")
    assert failed.exit_code == 1 and "nothing that can be read as masks" in failed.stderr
    assert "--from" in failed.stderr


def test_what_has_no_place_at_all_is_told_with_its_report(tmp_path: Path) -> None:
    free = replace(an_item(), truth=an_answer())
    with pytest.raises(NothingWrittenError, match="a place in yolo-classify") as caught:
        converted((free,), find("yolo-classify"), tmp_path / "out")
    assert [entry.kind for entry in caught.value.report.entries] == [Kind.SKIPPED]


def test_a_target_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = an_export(tmp_path, a_task(an_annotation(a_region())))
    for target in (tmp_path / "file" / "out", "/proc/nothing/out"):
        failed = run("convert", path, target, "--to", "yolo")
        assert failed.exit_code == 1 and "can be read and written" in failed.stderr, failed.output
    with pytest.raises(DatasetError, match="rights"):
        converted((an_item(),), find("yolo"), tmp_path / "file" / "out")


def test_a_report_or_sheet_without_a_folder_is_named_before_any_work(tmp_path: Path) -> None:
    path = an_export(tmp_path, a_task(an_annotation(a_region())))
    failed = run("convert", path, tmp_path / "out", "--to", "yolo", "--report", tmp_path / "gone" / "r.json")
    assert failed.exit_code == 1 and "Make the folder" in failed.stderr and not (tmp_path / "out").exists()
    assert run("dataset", "inspect", path, "--sheet", tmp_path / "gone" / "s.png").exit_code == 1
