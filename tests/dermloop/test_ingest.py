"""Images into the home: the good ones once, everything else named with its reason."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from converters.annotation import ImageRecord
from converters.dataset import file_digest
from dermloop.demo import DemoOptions, render, write_demo
from dermloop.errors import IngestError
from dermloop.home import Home
from dermloop.ingest import IngestReport, Skipped, ingest

SMALL = DemoOptions(size=64)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    place = Home(tmp_path / "home")
    place.create()
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def picture(index: int = 0) -> bytes:
    return render(9, index, SMALL).content


def reasons(report: IngestReport) -> dict[str, str]:
    return {entry.item: entry.reason for entry in report.skipped}


def test_images_lie_in_the_home_named_by_their_content(folder: Path, home: Home) -> None:
    (folder / "a.jpg").write_bytes(picture(0))
    (folder / "b.jpeg").write_bytes(picture(1))
    report = ingest(folder, home)
    assert [record.original_name for record in report.records] == ["a.jpg", "b.jpeg"]
    assert (report.stored, report.skipped) == (2, ())
    for record in report.records:
        assert file_digest(home.root / record.uri) == record.image_id


def test_each_bad_file_is_named_with_its_reason_and_the_rest_goes_on(folder: Path, home: Home) -> None:
    (folder / "good.jpg").write_bytes(picture())
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(picture()[:1500])
    (folder / "text.png").write_bytes(b"this is no picture")
    (folder / "notes.txt").write_text("hello", encoding="utf-8")
    (folder / "twice.jpg").write_bytes(picture())
    (folder / ".hidden.jpg").write_bytes(picture())
    report = ingest(folder, home)
    assert [record.original_name for record in report.records] == ["good.jpg"]
    told = reasons(report)
    assert set(told) == {"empty.jpg", "cut.jpg", "text.png", "notes.txt", "twice.jpg"}
    assert "0 bytes" in told["empty.jpg"]
    assert "intact" in told["cut.jpg"]
    assert "JPEG or PNG" in told["text.png"] and "JPEG or PNG" in told["notes.txt"]
    assert told["twice.jpg"] == "has the same content as good.jpg"


def test_two_pictures_of_one_name_are_both_taken_and_told_apart_by_folder(folder: Path, home: Home) -> None:
    for number, name in enumerate(("x", "y")):
        (folder / name).mkdir()
        (folder / name / "same.jpg").write_bytes(picture(number))
    report = ingest(folder, home)
    assert [record.original_name for record in report.records] == ["same.jpg", "y/same.jpg"]


def test_ingesting_again_stores_nothing_and_gives_the_same_records(folder: Path, home: Home) -> None:
    (folder / "a.jpg").write_bytes(picture())
    first, second = ingest(folder, home), ingest(folder, home)
    assert second.stored == 0 and second.records == first.records
    assert len(list(home.images.iterdir())) == 1


def test_a_photograph_is_turned_upright_and_loses_its_exif(folder: Path, home: Home) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "salmon").save(buffer, "JPEG", exif=exif)
    (folder / "phone.jpg").write_bytes(buffer.getvalue())
    record = ingest(folder, home).records[0]
    with Image.open(home.root / record.uri) as stored:
        assert stored.size == (20, 40) == (record.size.width, record.size.height)
        assert not stored.getexif()


def test_a_published_folder_with_masks_and_table_is_taken_with_its_facts(folder: Path, home: Home) -> None:
    write_demo(folder, 8, seed=5, options=SMALL)
    report = ingest(folder, home)
    drawn = [render(5, index, SMALL) for index in range(8)]
    assert [record.image_id for record in report.records] == [picture.record.image_id for picture in drawn]
    assert report.skipped == ()
    assert [note.reason for note in report.notes] == ["belong to images of the table; they are not images to label"]
    for record, original in zip(report.records, drawn, strict=True):
        assert record.synthetic and record.original_name == original.name
        assert (record.patient_id, record.age, record.skin_type) == (
            original.record.patient_id,
            original.record.age,
            original.record.skin_type,
        )


def test_unknown_columns_and_images_named_twice_are_reported(folder: Path, home: Home) -> None:
    (folder / "a.jpg").write_bytes(picture())
    table = folder.parent / "facts.csv"
    table.write_text("image,age,shoe_size\na.jpg,60,44\na.jpg,61,44\ngone.jpg,50,40\n", encoding="utf-8")
    report = ingest(folder, home, metadata=table)
    assert report.records[0].age == 60
    assert [entry.kind for entry in report.skipped] == ["column", "row"]
    assert "shoe_size" in report.skipped[0].item
    assert "named before in line 2" in report.skipped[1].reason
    assert report.notes == (Skipped("row", "line 4, gone.jpg", "has no file in the folder"),)


def test_a_limit_takes_the_first_files_by_name(folder: Path, home: Home) -> None:
    for index in range(4):
        (folder / f"{index}.jpg").write_bytes(picture(index))
    assert [record.original_name for record in ingest(folder, home, limit=2).records] == ["0.jpg", "1.jpg"]


def test_records_are_registered_and_progress_is_told(folder: Path, home: Home) -> None:
    for index in range(3):
        (folder / f"{index}.jpg").write_bytes(picture(index))
    registered: list[ImageRecord] = []
    told: list[tuple[int, int]] = []

    def register(records: object) -> int:
        registered.extend(records)  # type: ignore[call-overload]
        return len(registered)

    report = ingest(folder, home, register=register, progress=lambda done, total: told.append((done, total)))
    assert tuple(registered) == report.records and report.registered == 3
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("broken", ["folder", "table"])
def test_what_cannot_be_read_at_all_is_one_clear_error(folder: Path, home: Home, broken: str) -> None:
    table = folder.parent / "facts.csv"
    table.write_text("name,age\na.jpg,3\n", encoding="utf-8")
    place = folder / "nowhere" if broken == "folder" else folder
    with pytest.raises(IngestError, match=r"nowhere|facts\.csv"):
        ingest(place, home, metadata=table)
