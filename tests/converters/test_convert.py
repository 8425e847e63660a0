"""Conversions as a whole: atomic, resumable, private, split, and the command that runs them."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from builders_converters import TAXONOMY, a_lesion, an_answer, an_item, picture
from builders_formats import converted, memory_format, with_bytes
from builders_tasks import a_region, a_task, an_annotation, an_export
from moto import mock_aws
from PIL import Image
from typer.testing import CliRunner

from converters import duplicates, storage
from converters.annotation import Finding
from converters.cli import app
from converters.convert import LossError, convert, read_all
from converters.dataset import DatasetItem, Split
from converters.errors import DatasetError
from converters.formats.contract import ReadSettings, WriteSettings
from converters.formats.metadata_csv import WHOLE_IMAGE
from converters.formats.table import FORMATS, find, sniffed
from converters.geometry import PixelBox
from converters.naming import Names
from converters.request import Request
from converters.splits import SplitPolicy

RUN = CliRunner()


def pictured(folder: Path, count: int = 3) -> tuple[DatasetItem, ...]:
    return with_bytes(tuple(an_item(f"{n}.png") for n in range(count)), folder)


def test_a_target_that_holds_something_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(DatasetError, match="something is there"):
        converted((an_item(),), find("yolo"), tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_a_loss_fails_the_conversion_and_leaves_nothing(tmp_path: Path) -> None:
    item = replace(an_item(), truth=an_answer(a_lesion(None)))
    with pytest.raises(LossError):
        converted((item,), find("yolo"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_allowed_loss_is_on_the_list_and_the_image_is_no_background(tmp_path: Path) -> None:
    bad = replace(an_item("bad.jpg"), truth=an_answer(a_lesion(None)))
    report = converted((an_item(), bad), find("yolo"), tmp_path / "out", allow_loss=True)
    reason = "is left out with its lesions: one has no diagnosis, and the format writes diagnoses only"
    assert [(entry.item, entry.reason) for entry in report.failures] == [("bad.jpg", reason)]
    assert (report.images, report.classes) == (1, {"nv": 1})
    assert [path.name for path in (tmp_path / "out").rglob("*.txt")] == ["a.txt"]


def test_lesions_stated_but_not_drawn_never_become_background(tmp_path: Path) -> None:
    item = replace(an_item(), truth=replace(an_answer(), finding=Finding.LESIONS))
    with pytest.raises(LossError, match="must not become a background"):
        converted((item,), find("yolo"), tmp_path / "out")


def test_a_killed_run_leaves_no_dataset_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from converters import output

    items = pictured(tmp_path / "in")
    real, copied = output.exported, []

    def dies_at_the_third(path: Path, redactions: Any) -> bytes:
        copied.append(path)
        if len(copied) == 3:
            raise KeyboardInterrupt
        return real(path, redactions)

    monkeypatch.setattr(output, "exported", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        converted(items, find("yolo"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    converted(items, find("yolo"), tmp_path / "out")
    assert len(copied) == 4
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_metadata_is_stripped_and_redacted_regions_are_black_in_every_export(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x010F] = "PhoneMaker"
    for kind in ("PNG", "JPEG"):
        path = tmp_path / kind / f"x.{'png' if kind == 'PNG' else 'jpg'}"
        path.parent.mkdir()
        path.write_bytes(picture(100, 80, format=kind, exif=tags))
        item = with_bytes((an_item(path.name),), tmp_path / kind / "in")[0]
        item = replace(item, record=replace(item.record, uri=str(path)))
        item = replace(item, truth=replace(item.truth, redactions=(PixelBox(60, 10, 80, 30),)))
        for name in ("yolo", "coco", "label-studio", "crops"):
            target = tmp_path / kind / name
            converted((item,), find(name), target)
            for file in [p for p in target.rglob("*") if p.suffix in (".png", ".jpg") and name != "crops"]:
                assert b"PhoneMaker" not in file.read_bytes()
                pixels = np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("L"))
                assert pixels[12:28, 62:78].mean() < 3 < pixels.mean()
        assert b"redact" not in (tmp_path / kind / "label-studio" / "tasks.json").read_bytes()


def test_content_names_tell_nobody_who_is_on_the_picture(tmp_path: Path) -> None:
    items = with_bytes((an_item("Smith_John.png", patient_id="P7"),), tmp_path / "in")
    converted(items, find("coco"), tmp_path / "out", names=Names.CONTENT)
    for path in (tmp_path / "out").rglob("*"):
        assert "Smith" not in path.name and (path.is_dir() or b"Smith" not in path.read_bytes())
    assert (tmp_path / "out/images/train" / f"{items[0].record.image_id}.png").is_file()


def test_a_split_keeps_patients_and_near_duplicates_together_and_earlier_splits_in_place(tmp_path: Path) -> None:
    items = [replace(item, record=replace(item.record, patient_id=None)) for item in pictured(tmp_path / "in", 12)]
    again = Image.open(items[0].record.uri).rotate(90, expand=True).resize((80, 100))
    path = tmp_path / "in" / "again.png"
    again.save(path)
    twin = replace(
        items[1], record=replace(items[1].record, image_id="f" * 64, uri=str(path), original_name="again.png")
    )
    twin = replace(twin, record=replace(twin.record, size=type(twin.record.size)(80, 100)))
    locked = replace(items[2], split=Split.TEST)
    some = (items[0], items[1], locked, *items[3:], twin)
    converted(some, find("voc"), tmp_path / "out", split=SplitPolicy())
    parts = {s: (tmp_path / f"out/ImageSets/Main/{s}.txt").read_text().split() for s in ("train", "val", "test")}
    where = {stem: split for split, stems in parts.items() for stem in stems}
    assert where["0"] == where["again"] and where["2"] == "test"


def test_turned_scaled_and_recompressed_pictures_are_near_duplicates_and_others_are_not(tmp_path: Path) -> None:
    one = Image.open(io.BytesIO(picture(200, 160, seed=1)))
    variants = {
        "a": one,
        "b": one.rotate(180),
        "c": one.resize((90, 70)),
        "d": one.transpose(Image.Transpose.TRANSPOSE),
    }
    for name, image in variants.items():
        image.save(tmp_path / f"{name}.jpg", quality=60)
    (tmp_path / "e.jpg").write_bytes(picture(200, 160, seed=2))
    pairs = duplicates.near_duplicates({path.stem: path for path in tmp_path.glob("*.jpg")})
    assert pairs == (("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d"))


def test_the_list_of_formats_is_in_the_readme() -> None:
    text = (Path(__file__).parents[2] / "converters" / "README.md").read_text()
    assert [name for name in FORMATS if f"`{name}`" not in text] == []


def test_sniffing_says_what_it_knows_when_it_knows_nothing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"unknown format.*--from"):
        sniffed(tmp_path)
    with pytest.raises(DatasetError, match="nothing there"):
        sniffed(tmp_path / "gone")
    with pytest.raises(DatasetError, match="one of frozen, label-studio"):
        find("yolo12")


def test_more_items_than_fit_in_memory_are_compared_from_disk(tmp_path: Path) -> None:
    from converters.formats.contract import Placed
    from converters.written import Written

    with closing(Written(addresses=False, in_memory=1)) as written:
        for name in ("a.jpg", "b.jpg"):
            written.add(Placed(an_item(name), name))
        found = written.take("b.jpg")
        assert found is not None and found.item == an_item("b.jpg")
        assert [placed.name for placed in written.left()] == ["a.jpg"]


def run(*arguments: object) -> Any:
    return RUN.invoke(app, [str(argument) for argument in arguments])


MANIFEST = (
    '{"source-ref":"s3://b/a.jpg","boxes":{"image_size":[{"width":200,"height":100,"depth":3}],"annotations":'
    '[{"class_id":4,"left":1,"top":2,"width":30,"height":20}]},"boxes-metadata":{"class-map":{"4":"mel"},'
    '"type":"groundtruth/object-detection","objects":[{"confidence":1}]}}\n'
)


def test_every_stage_has_a_bar_and_the_later_ones_know_their_end(tmp_path: Path) -> None:
    source = tmp_path / "boxes.manifest"
    source.write_text("".join(MANIFEST.replace("a.jpg", f"{number}.jpg") for number in range(3)))
    told = RUN.invoke(
        app,
        ["convert", str(source), str(tmp_path / "out"), "--to", "coco", "--split", "70/15/15"],
        env={"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "COLUMNS": "120"},
    )
    assert told.exit_code == 0, told.output
    for stage in ("deal into splits", "convert", "read back"):
        assert re.search(rf"{stage} [^\n]*3/3", told.stderr)


def test_a_manifest_line_that_is_not_json_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "boxes.manifest"
    path.write_text(MANIFEST + "not json\n")
    done = run("convert", path, tmp_path / "out", "--to", "yolo")
    assert done.exit_code == 1 and "boxes.manifest, line 2" in done.stderr and not (tmp_path / "out").exists()


ROW = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0, "segmentation": []}
DAMAGES = {
    "image 2, id: got 1; expected an id of its own": {"images": [1, 1]},
    "annotation id: got 1; expected an id of its own": {"annotations": [ROW, ROW]},
    "annotation 1, bbox: got (190.0, 2.0, 220.0, 6.0); expected left, top, right and bottom inside 200×100 pixels": {
        "annotations": [{**ROW, "bbox": [190, 2, 30, 4]}]
    },
    "got 9; expected a category of the file": {"annotations": [{**ROW, "category_id": 9}]},
}


@pytest.mark.parametrize("said", DAMAGES)
def test_a_damaged_coco_file_is_refused_with_file_item_value_and_cure(tmp_path: Path, said: str) -> None:
    damage = {"images": [1], "annotations": [ROW], **DAMAGES[said]}
    images = [{"id": n, "file_name": f"{k}.jpg", "width": 200, "height": 100} for k, n in enumerate(damage["images"])]
    categories = [{"id": 1, "name": "mel"}]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": damage["annotations"], "categories": categories}))
    done = run("convert", path, tmp_path / "out", "--to", "yolo")
    assert done.exit_code == 1 and "instances.json" in done.stderr and said in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_converts_sniffs_reports_and_inspects(tmp_path: Path) -> None:
    path = an_export(tmp_path, a_task(an_annotation(a_region())))
    done = run("convert", path, tmp_path / "coco", "--to", "coco", "--report", tmp_path / "r.json", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["from"], report["images"], report["classes"]) == ("label-studio", 1, {"mel": 1})
    assert json.loads((tmp_path / "r.json").read_text()) == report
    inspected = run("dataset", "inspect", tmp_path / "coco", "--json")
    assert json.loads(inspected.stdout)["classes"] == {"mel": 1}
    assert "1 image, 1 lesion, 0 patients known" in run("dataset", "inspect", tmp_path / "coco").stdout
    assert "yolo-segment" in run("dataset", "formats").stdout


def test_the_command_fails_with_one_sentence_status_one_and_the_whole_report(tmp_path: Path) -> None:
    path = an_export(tmp_path, a_task(an_annotation(a_region("Wart"))))
    failed = run("convert", path, tmp_path / "out", "--to", "yolo", "--report", tmp_path / "r.json")
    assert failed.exit_code == 1 and "Wart" in failed.stderr and "Traceback" not in failed.output
    assert json.loads((tmp_path / "r.json").read_text())["counts"]["refused"] == 1
    assert not (tmp_path / "out").exists()
    assert run("convert", tmp_path / "gone", tmp_path / "o", "--to", "yolo").exit_code == 1
    assert run("convert", path, tmp_path / "o", "--to", "yolo", "--split", "a/b").exit_code == 1


def test_two_datasets_are_compared_label_by_label(tmp_path: Path) -> None:
    one = an_export(tmp_path, a_task(an_annotation(a_region())))
    assert run("convert", one, tmp_path / "a", "--to", "coco").exit_code == 0
    assert run("dataset", "diff", one, tmp_path / "a").exit_code == 1  # the split was unknown before
    two = an_export(tmp_path, a_task(an_annotation(a_region("Melanocytic nevus"))))
    assert run("convert", two, tmp_path / "b", "--to", "coco").exit_code == 0
    found = run("dataset", "diff", tmp_path / "a", tmp_path / "b")
    assert found.exit_code == 1 and "− mel [20.0, 20.0, 80.0, 60.0]" in found.stdout
    assert run("dataset", "diff", tmp_path / "a", tmp_path / "a").stdout.strip() == "equal"


def test_a_contact_sheet_shows_the_boxes(tmp_path: Path) -> None:
    converted(pictured(tmp_path / "in"), find("yolo"), tmp_path / "out")
    done = run("dataset", "inspect", tmp_path / "out", "--sheet", tmp_path / "sheet.png")
    assert done.exit_code == 0, done.output
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3)
    assert (np.abs(sheet.astype(int) - (0x1E, 0x7F, 0xC2)).sum(axis=1) < 10).sum() > 50


def test_a_taxonomy_change_is_explained(tmp_path: Path) -> None:
    shipped = (Path(__file__).parents[2] / "converters" / "taxonomy.toml").read_text()
    (tmp_path / "old.toml").write_text(shipped)
    assert "append-only" in run("taxonomy", "diff", tmp_path / "old.toml").stdout
    (tmp_path / "new.toml").write_text(shipped.replace('name = "Melanoma"', 'name = "Malignant mole"'))
    changed = run("taxonomy", "diff", tmp_path / "old.toml", tmp_path / "new.toml")
    assert changed.exit_code == 1 and "mel (id 4): name" in changed.stdout
    assert run("taxonomy", "show").stdout.count("\n") == 7


@mock_aws
def test_a_dataset_goes_to_s3_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="derm")
    path = an_export(tmp_path, a_task(an_annotation(a_region())))
    done = run("convert", path, "s3://derm/sets/coco", "--to", "coco")
    assert done.exit_code == 0, done.output
    back = run("dataset", "inspect", "s3://derm/sets/coco", "--json")
    assert json.loads(back.stdout)["classes"] == {"mel": 1}
    again = run("convert", path, "s3://derm/sets/coco", "--to", "coco")
    assert again.exit_code == 1 and "finished export" in again.stderr
    boto3.client("s3").put_object(Bucket="derm", Key="sets/yolo/labels/old.txt", Body=b"left by a killed run")
    mixed = run("convert", path, "s3://derm/sets/yolo", "--to", "yolo")
    assert mixed.exit_code == 1 and "1 other objects, such as sets/yolo/labels/old.txt" in mixed.stderr
    for address in ("s3://derm/nothing", "s3://nobody/x", "s3://derm"):
        assert run("dataset", "inspect", address).exit_code == 1
    assert not storage.is_remote("folder")


def test_a_crop_is_padded_and_its_jitter_does_not_depend_on_the_run(tmp_path: Path) -> None:
    items = pictured(tmp_path / "in", 1)
    settings = WriteSettings(TAXONOMY, crop_padding=0.5, crop_jitter=0.2, crop_copies=3)
    for name in ("a", "b"):
        converted(items, find("crops"), tmp_path / name, write=settings)
    crops = sorted((tmp_path / "a").rglob("*.jpg"))
    assert Image.open(io.BytesIO(crops[0].read_bytes())).size == (40, 80)
    assert len({path.read_bytes() for path in crops}) == 3
    assert [path.read_bytes() for path in crops] == [p.read_bytes() for p in sorted((tmp_path / "b").rglob("*.jpg"))]


def test_two_runs_to_one_target_do_not_mix(tmp_path: Path) -> None:
    from converters.output import open_output

    with open_output(tmp_path / "out", "x"), pytest.raises(DatasetError, match="another run"):
        converted((an_item(),), find("yolo"), tmp_path / "out")


def test_a_format_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    request = Request(
        tmp_path, tmp_path / "out", memory_format(()), find("frozen"), ReadSettings(TAXONOMY), WriteSettings(TAXONOMY)
    )
    with pytest.raises(DatasetError, match="written"):
        convert(request)


def test_a_process_that_is_killed_leaves_no_target(tmp_path: Path) -> None:
    script = (
        "import os, sys; from converters import output; "
        "output.OutputFolder.finish = lambda self: os._exit(9); "
        "from converters.cli import app; app()"
    )
    path = an_export(tmp_path, a_task(an_annotation(a_region())))
    arguments = ["convert", str(path), str(tmp_path / "out"), "--to", "voc"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env={**os.environ, "PYTHONPATH": str(root)}, check=False
    )
    assert done.returncode == 9 and not (tmp_path / "out").exists()
    assert run(*arguments).exit_code == 0
    assert (tmp_path / "out" / "Annotations").is_dir()


def test_a_diagnosis_for_the_whole_picture_does_not_become_a_box(tmp_path: Path) -> None:
    whole = a_lesion("mel", PixelBox(0, 0, 100, 80), attributes=(WHOLE_IMAGE,))
    item = with_bytes((replace(an_item(), truth=an_answer(whole)),), tmp_path / "in")[0]
    for name in ("yolo", "coco", "voc", "masks", "ground-truth-boxes"):
        with pytest.raises(DatasetError, match="for the whole picture"):
            converted((item,), find(name), tmp_path / name)
    for name in ("label-studio", "csv", "crops", "yolo-classify", "ground-truth-classes"):
        assert converted((item,), find(name), tmp_path / name).failures == ()
    assert ",mel,,,,,100,80" in (tmp_path / "csv" / "metadata.csv").read_text()


def test_a_diagnosis_for_the_whole_picture_comes_back_from_its_crop_without_a_box(tmp_path: Path) -> None:
    whole = a_lesion("mel", PixelBox(0, 0, 100, 80), attributes=(WHOLE_IMAGE,))
    items = with_bytes((replace(an_item(), truth=an_answer(whole)),), tmp_path / "in")
    assert converted(items, find("crops"), tmp_path / "crops").failures == ()
    (item,), _ = read_all(tmp_path / "crops", find("crops"), ReadSettings(TAXONOMY))
    assert item.truth.lesions[0].attributes == (WHOLE_IMAGE,)


@pytest.mark.parametrize("option", [("--crop-copies", 0), ("--crop-copies", 2), ("--crop-padding", -1)])
def test_crops_that_make_no_sense_are_refused_before_any_work(tmp_path: Path, option: tuple[str, int]) -> None:
    path = an_export(tmp_path, a_task(an_annotation(a_region())))
    failed = run("convert", path, tmp_path / "out", "--to", "crops", *option)
    assert failed.exit_code == 1 and "crop " in failed.stderr and not (tmp_path / "out").exists()


def test_two_index_masks_of_one_image_are_refused(tmp_path: Path) -> None:
    converted(with_bytes((an_item(),), tmp_path / "in"), find("masks-index"), tmp_path / "out")
    table = tmp_path / "out" / "index_masks.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")
    items, (entry,) = read_all(tmp_path / "out", find("masks-index"), ReadSettings(TAXONOMY))
    assert items == () and "one index mask" in entry.reason


def test_an_inspection_says_what_is_left_out_and_which_pictures_are_alike(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.png").write_bytes(picture(seed=3, format="PNG", compress_level=number))
    table = "image,dx,bbox_x,bbox_y,bbox_w,bbox_h\n" + "".join(f"{n}.png,nv,1,1,9,9\n" for n in range(7))
    (tmp_path / "metadata.csv").write_text(f"{table}gone.png,nv,1,1,9,9\n")
    said = run("dataset", "inspect", tmp_path, "--images", tmp_path).stdout
    assert "refused   metadata.csv, line 9" in said and "near-duplicates 21 pairs" in said
    assert "  0.png and 1.png" in said and "… 16 more; --json has them all" in said
