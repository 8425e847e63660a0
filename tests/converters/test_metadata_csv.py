"""Metadata tables: what is read, what counts as unknown, and what lands on the list of issues."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.annotation import Confirmation, TruthLevel
from converters.errors import AnnotationError, ConversionError, DatasetError
from converters.formats.metadata_csv import WHOLE_IMAGE, MetadataTable, read_rows
from converters.geometry import ImageSize, PixelBox, RleMask

HEADER = "image,mask,dx,dx_source,confirm_type,age,sex,localization,skin_type,lesion_id,patient_id,"
HEADER += "bbox_x,bbox_y,bbox_w,bbox_h,mask_components,width,height,geometry,note"
FULL = "images/a.jpg,masks/a.png,mel,MEL,histo,80,male,Back,3,L1,P1,10,20,30,40,1,200,100,original aspect,ruler"


def table(tmp_path: Path, *lines: str) -> MetadataTable:
    path = tmp_path / "metadata.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_rows(path)


def test_a_full_row_becomes_facts_and_one_confirmed_lesion(tmp_path: Path) -> None:
    found = table(tmp_path, HEADER, FULL)
    row = found.rows["a.jpg"]
    record = row.record("0" * 64, "images/0.jpg", ImageSize(200, 100), source="isic2018")
    truth = row.truth("0" * 64, ImageSize(200, 100))
    assert found.issues == ()
    assert (record.age, record.sex, record.site, record.skin_type) == (80.0, "male", "back", 3)
    assert (record.lesion_id, record.patient_id, record.source) == ("L1", "P1", "isic2018")
    assert record.confirmation is Confirmation.HISTOPATHOLOGY
    assert dict(record.extra)["note"] == "ruler"
    assert truth is not None and truth.level is TruthLevel.HISTOPATHOLOGY
    assert (truth.lesions[0].box, truth.lesions[0].diagnosis) == (PixelBox(10, 20, 40, 60), "mel")
    assert truth.lesions[0].severity == "high"


def test_blank_cells_are_unknown_and_not_no(tmp_path: Path) -> None:
    row = table(tmp_path, HEADER, "a.jpg" + "," * 19).rows["a.jpg"]
    assert (row.age, row.sex, row.skin_type, row.diagnosis, row.box, row.consent) == (None,) * 6
    assert row.confirmation is Confirmation.UNKNOWN
    assert row.truth("0" * 64, ImageSize(10, 10)) is None


def test_an_unknown_column_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    found = table(tmp_path, "image,dx,shoe_size", "a.jpg,nv,44")
    assert [str(issue) for issue in found.issues] == [
        "line 1, shoe_size: 'shoe_size' is an unknown column; it was left out"
    ]
    assert found.rows["a.jpg"].diagnosis == "nv"


def test_an_image_named_twice_is_reported_and_the_first_row_holds(tmp_path: Path) -> None:
    found = table(tmp_path, "image,dx", "a.jpg,nv", "a.jpg,mel", "b.jpg,bcc")
    reason = "was named before in line 2; the row was left out"
    assert [(issue.line, issue.reason) for issue in found.issues] == [(3, reason)]
    assert {name: row.diagnosis for name, row in found.rows.items()} == {"a.jpg": "nv", "b.jpg": "bcc"}


def test_equal_file_names_in_two_folders_stay_two_images(tmp_path: Path) -> None:
    found = table(tmp_path, "image,dx", "one/a.jpg,nv", "two/a.jpg,mel")
    first, second = found.find("/data/one/a.jpg"), found.find("two/a.jpg")
    assert found.issues == ()
    assert first is not None and first.diagnosis == "nv"
    assert second is not None and second.diagnosis == "mel"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("dx", "wart"),
        ("age", "-3"),
        ("age", "inf"),
        ("age", "old"),
        ("sex", "x-ray"),
        ("skin_type", "7"),
        ("skin_type", "2.5"),
        ("confirm_type", "guessed"),
        ("width", "12"),
        ("bbox_x", "4"),
        ("consent", "maybe"),
    ],
)
def test_a_bad_cell_counts_as_unknown_and_is_listed_with_its_reason(tmp_path: Path, column: str, value: str) -> None:
    found = table(tmp_path, f"image,{column}", f"a.jpg,{value}")
    (issue,) = found.issues
    assert (issue.line, issue.image) == (2, "a.jpg")
    assert value in issue.value and "it counts as unknown" in issue.reason
    assert found.rows["a.jpg"].truth("0" * 64, ImageSize(10, 10)) is None


def test_a_box_outside_the_picture_is_not_taken(tmp_path: Path) -> None:
    lines = "image,dx,bbox_x,bbox_y,bbox_w,bbox_h,width,height", "a.jpg,nv,90,0,20,20,100,100"
    found = table(tmp_path, *lines)
    assert found.rows["a.jpg"].box is None
    assert found.issues[0].column == "bbox"


def test_a_diagnosis_without_a_box_covers_the_whole_image_and_says_so(tmp_path: Path) -> None:
    truth = table(tmp_path, "image,dx", "a.jpg,nv").rows["a.jpg"].truth("0" * 64, ImageSize(30, 20))
    assert truth is not None
    assert (truth.lesions[0].box, truth.lesions[0].attributes) == (PixelBox(0, 0, 30, 20), (WHOLE_IMAGE,))


def test_a_mask_becomes_the_shape_and_gives_the_box(tmp_path: Path) -> None:
    mask = RleMask(ImageSize(4, 2), (2, 2, 4))
    truth = table(tmp_path, "image,dx", "a.jpg,nv").rows["a.jpg"].truth("0" * 64, ImageSize(4, 2), mask)
    assert truth is not None
    assert (truth.lesions[0].shape, truth.lesions[0].box) == (mask, PixelBox(1, 0, 2, 2))


def test_a_size_that_disagrees_with_the_image_is_refused(tmp_path: Path) -> None:
    row = table(tmp_path, HEADER, FULL).rows["a.jpg"]
    with pytest.raises(AnnotationError, match=r"line 2, images/a\.jpg, table size"):
        row.truth("0" * 64, ImageSize(100, 200))


@pytest.mark.parametrize("header", ["", "picture,dx", "image,image_id,dx", '"image'])
def test_a_table_without_a_clear_image_column_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(DatasetError, match="names the image column"):
        table(tmp_path, header, "a.jpg,nv")


def test_semicolons_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("\ufeffimage;dx\r\nä.jpg;nv\r\n".encode())
    assert read_rows(path).rows["ä.jpg"].diagnosis == "nv"


def test_a_row_of_the_wrong_length_is_left_out_with_its_line(tmp_path: Path) -> None:
    found = table(tmp_path, "image,dx", "a.jpg", "b.jpg,nv,extra", "c.jpg,nv")
    assert [issue.line for issue in found.issues] == [2, 3]
    assert list(found.rows) == ["c.jpg"]


@given(st.text(alphabet='image,dxage"\n\r;\t 0123.-nv\0ä', max_size=80))
def test_any_text_is_read_or_refused_with_a_named_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("tables") / "m.csv"
    path.write_text(text, encoding="utf-8")
    try:
        read_rows(path)
    except ConversionError as error:
        assert str(path) in str(error)


def test_rows_of_one_picture_with_different_boxes_are_its_lesions(tmp_path: Path) -> None:
    header = "image,dx,patient_id,bbox_x,bbox_y,bbox_w,bbox_h"
    found = table(tmp_path, header, "a.jpg,nv,P1,1,1,5,5", "a.jpg,mel,P1,20,20,5,5", "a.jpg,df,P1,20,20,5,5")
    truth = found.rows["a.jpg"].truth("0" * 64, ImageSize(40, 40))
    assert truth is not None
    assert [lesion.diagnosis for lesion in truth.lesions] == ["nv", "mel"]
    assert [issue.line for issue in found.issues] == [4]


@pytest.mark.parametrize("finding", ["lesion-free", "ungradable"])
def test_a_stated_finding_without_lesions_is_kept_apart_from_not_knowing(tmp_path: Path, finding: str) -> None:
    row = table(tmp_path, "image,finding", f"a.jpg,{finding}").rows["a.jpg"]
    truth = row.truth("0" * 64, ImageSize(40, 40))
    assert truth is not None
    assert (truth.finding.value, truth.lesions) == (finding, ())
