"""What Label Studio's own converter gets wrong (SDK 2.1.2): each defect reproduced there and shown right here."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders_converters import TAXONOMY
from builders_tasks import HEIGHT, WIDTH, a_choice, a_region, a_task, an_annotation, an_export, read, to
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from converters.convert import LossError, read_all
from converters.errors import AnnotationError
from converters.formats.contract import ReadSettings
from converters.formats.table import find
from converters.formats.yolo_rows import Classes, Task, parse_row
from converters.geometry import ImageSize, PercentBox, PixelBox, percent_to_rotated
from converters.label_studio.brush import encode_brush
from converters.taxonomy import Diagnosis, Severity

SDK_CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="diagnosis" toName="image">
<Label value="Melanoma"/><Label value="Basal cell carcinoma"/><Label value="Melanocytic nevus"/></RectangleLabels>
</View>"""
OLD, NEW = "2026-01-01T00:00:00.000000Z", "2026-02-01T00:00:00.000000Z"


def sdk(path: Path, target: Path, kind: str, config: str = SDK_CONFIG) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from label_studio_sdk.converter import Converter

        converter = Converter(config, str(path.parent), download_resources=False)
        getattr(converter, f"convert_to_{kind}")(str(path), str(target), is_dir=False)
    return target


def labels(folder: Path) -> list[str]:
    return [line for path in sorted(folder.rglob("labels/**/*.txt")) for line in path.read_text().splitlines()]


def two_readers(tmp_path: Path) -> Path:
    junior = an_annotation(a_region("Melanocytic nevus"), id=1, completed_by=1, created_at=OLD, updated_at=OLD)
    senior = an_annotation(
        a_region("Melanoma"), id=2, completed_by=2, created_at=NEW, updated_at=NEW, ground_truth=True
    )
    return an_export(tmp_path, a_task(senior, junior))


def test_two_annotators_the_newer_ground_truth_holds_and_not_the_oldest(tmp_path: Path) -> None:
    path = two_readers(tmp_path)
    assert labels(sdk(path, tmp_path / "sdk", "yolo"))[0].startswith("1 ")  # the junior's nevus
    to("yolo", path, tmp_path / "ours")
    (line,) = labels(tmp_path / "ours")
    assert line.split()[0] == str(TAXONOMY.resolve("mel").id)


def test_two_annotators_coco_lists_the_image_once_with_one_label(tmp_path: Path) -> None:
    path = two_readers(tmp_path)
    theirs = json.loads((sdk(path, tmp_path / "sdk", "coco") / "result.json").read_text())
    assert len(theirs["annotations"]) == 2
    to("coco", path, tmp_path / "ours")
    ours = json.loads((tmp_path / "ours/annotations/instances_train.json").read_text())
    assert (len(ours["images"]), len(ours["annotations"])) == (1, 1)


def test_two_annotators_of_equal_standing_who_disagree_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    one = an_annotation(a_region("Melanoma"), id=1, completed_by=1)
    other = an_annotation(a_region("Melanocytic nevus"), id=2, completed_by=2)
    path = an_export(tmp_path, a_task(one, other))
    with pytest.raises(LossError, match="Adjudicate"):
        to("voc", path, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_category_attributes_melanoma_does_not_read_back_as_basal_cell_carcinoma(tmp_path: Path) -> None:
    config = SDK_CONFIG.replace('value="Melanoma"', 'value="Melanoma" category="1"')
    config = config.replace('value="Basal cell carcinoma"', 'value="Basal cell carcinoma" category="0"')
    path = an_export(tmp_path, a_task(an_annotation(a_region("Melanoma"))))
    theirs = sdk(path, tmp_path / "sdk", "yolo", config)
    number = int(labels(theirs)[0].split()[0])
    assert (theirs / "classes.txt").read_text().splitlines()[number] == "Basal cell carcinoma"
    to("yolo", path, tmp_path / "ours")
    items, _ = read_all(tmp_path / "ours", find("yolo"), ReadSettings(TAXONOMY, sizes=sizes(tmp_path / "ours")))
    assert items[0].truth.lesions[0].diagnosis == "mel"


def sizes(folder: Path) -> dict[str, ImageSize]:
    return {path.stem: ImageSize(WIDTH, HEIGHT) for path in folder.rglob("labels/**/*.txt")}


def test_adding_a_class_does_not_renumber_the_others(tmp_path: Path) -> None:
    path = an_export(tmp_path, a_task(an_annotation(a_region("Melanoma"))))
    grown = SDK_CONFIG.replace('<Label value="Melanoma"/>', '<Label value="Acne"/><Label value="Melanoma"/>')
    before = labels(sdk(path, tmp_path / "a", "yolo"))[0].split()[0]
    assert labels(sdk(path, tmp_path / "b", "yolo", grown))[0].split()[0] != before
    larger = TAXONOMY.extended([Diagnosis(7, "acne", "Acne", Severity.LOW, False)])
    to("yolo", path, tmp_path / "c")
    to("yolo", path, tmp_path / "d", taxonomy=larger, classes=larger)
    assert labels(tmp_path / "c") == labels(tmp_path / "d")


@pytest.mark.parametrize(("target", "tolerance"), [("yolo", 1e-3), ("voc", 1e-3), ("coco", 1e-3), ("yolo-obb", 1e-3)])
def test_rotated_boxes_on_an_oblong_image_lie_where_they_were_drawn(
    tmp_path: Path, target: str, tolerance: float
) -> None:
    drawn = percent_to_rotated(PercentBox(40, 30, 20, 30, 33), ImageSize(WIDTH, HEIGHT))
    region = a_region("Melanoma", x=40, y=30, width=20, height=30, rotation=33)
    path = an_export(tmp_path, a_task(an_annotation(region)))
    to(target, path, tmp_path / "ours")
    settings = ReadSettings(TAXONOMY, sizes=sizes(tmp_path / "ours"))
    (item,), _ = read_all(tmp_path / "ours", find(target), settings)
    assert item.truth.lesions[0].box.iou(drawn.envelope()) > 1 - tolerance


def test_the_same_file_name_in_two_folders_leaves_two_label_files(tmp_path: Path) -> None:
    one = a_task(an_annotation(a_region("Melanoma")), image="s3://derm/a/x.jpg")
    other = a_task(an_annotation(a_region("Melanocytic nevus")), image="s3://derm/b/x.jpg")
    path = an_export(tmp_path, one, other)
    assert len(list((sdk(path, tmp_path / "sdk", "yolo") / "labels").iterdir())) == 1
    to("yolo", path, tmp_path / "ours")
    assert len(list((tmp_path / "ours").rglob("labels/**/*.txt"))) == 2


def test_tasks_that_nobody_annotated_do_not_become_background(tmp_path: Path) -> None:
    labelled = a_task(an_annotation(a_region()), image="s3://derm/a.jpg")
    nobody, skipped = a_task(image="s3://derm/b.jpg"), a_task(an_annotation(was_cancelled=True), image="s3://d/c.jpg")
    ungradable = a_task(an_annotation(a_choice("finding", "Ungradable")), image="s3://derm/d.jpg", **sized())
    free = a_task(an_annotation(a_choice("finding", "Lesion-free")), image="s3://derm/e.jpg", **sized())
    path = an_export(tmp_path, labelled, nobody, skipped, ungradable, free)
    assert (sdk(path, tmp_path / "sdk", "yolo") / "labels" / "b.txt").read_text() == ""
    report = to("yolo", path, tmp_path / "ours")
    found = sorted(path.name for path in (tmp_path / "ours").rglob("labels/**/*.txt"))
    assert found == ["a.txt", "e.txt"] and report.backgrounds == 1
    assert sorted(entry.reason for entry in report.entries if entry.kind == "skipped") == [
        "nobody has looked at it",
        "only a confirmed lesion-free image becomes a background",
        "skipped by its reader",
    ]


def sized() -> dict[str, Any]:
    return {"meta": {"dermloop": {"record": {"size": [WIDTH, HEIGHT]}}}}


def ring() -> np.ndarray:
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(yy - 50, xx - 100)
    return (distance < 45) & (distance > 25)


def test_brush_to_coco_keeps_the_hole_of_a_ring(tmp_path: Path) -> None:
    mask = ring()
    region = a_region("Melanoma", "brush", format="rle", rle=encode_brush(mask))
    path = an_export(tmp_path, a_task(an_annotation(region)))
    to("coco", path, tmp_path / "ours")
    file = tmp_path / "ours/annotations/instances_train.json"
    coco = COCO(str(file))
    (row,) = coco.dataset["annotations"]
    assert int(coco_mask.area(coco.annToRLE(row))) == row["area"] == int(mask.sum())


@pytest.mark.parametrize("target", ["yolo-segment", "masks", "masks-index", "ground-truth-segmentation"])
def test_a_ring_keeps_its_hole_in_every_format_of_pixels(tmp_path: Path, target: str) -> None:
    region = a_region("Melanoma", "brush", format="rle", rle=encode_brush(ring()))
    path = an_export(tmp_path, a_task(an_annotation(region)))
    report = to(target, path, tmp_path / "ours")
    assert report.failures == () and report.lesions == 1


def test_voc_keeps_polygons_as_boxes_and_does_not_cut_fractions(tmp_path: Path) -> None:
    points = [[10.3, 20.7], [40.1, 20.7], [40.1, 60.9]]
    region = a_region("Melanoma", "polygon", points=points)
    path = an_export(tmp_path, a_task(an_annotation(region)))
    to("voc", path, tmp_path / "ours")
    (item,), _ = read_all(tmp_path / "ours", find("voc"), ReadSettings(TAXONOMY))
    box = item.truth.lesions[0].box
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == pytest.approx((20.6, 20.7, 80.2, 60.9))


def test_a_polygon_row_is_not_read_as_a_wrong_box() -> None:
    classes = Classes(TAXONOMY.diagnoses)
    with pytest.raises(AnnotationError, match="--from yolo-segment"):
        parse_row("0 0.1 0.1 0.5 0.1 0.5 0.5", ImageSize(10, 10), classes, Task.DETECT, "a.txt, line 1")


def test_ground_truth_manifests_are_written_and_read(tmp_path: Path) -> None:
    path = an_export(tmp_path, a_task(an_annotation(a_region())))
    assert to("ground-truth-boxes", path, tmp_path / "ours").failures == ()
    line = json.loads((tmp_path / "ours/train.manifest").read_text())
    assert line["bounding-box-metadata"]["class-map"] == {"4": "mel"}
    assert line["bounding-box-metadata"]["type"] == "groundtruth/object-detection"


def test_every_address_style_names_its_file(tmp_path: Path) -> None:
    styles = {
        "/data/upload/1/0a1b2c3d-mole 1.jpg": "0a1b2c3d-mole_1.jpg",
        "/data/local-files/?d=set/mole%202.jpg": "mole_2.jpg",
        "s3://derm/set/mole3.jpg": "mole3.jpg",
        "gs://derm/set/mole4.png": "mole4.png",
        "azure-blob://derm/set/mole5.png": "mole5.png",
        "https://host/set/mole6.jpg?token=a/b.jpg": "mole6.jpg",
        "images/mole7.jpg": "mole7.jpg",
        "http://host:8080/data/upload/1/0a1b2c3d-mole8.jpg": "0a1b2c3d-mole8.jpg",
    }
    tasks = [a_task(an_annotation(a_region()), image=image) for image in styles]
    to("coco", an_export(tmp_path, *tasks), tmp_path / "ours")
    data = json.loads((tmp_path / "ours/annotations/instances_train.json").read_text())
    assert [row["file_name"] for row in data["images"]] == list(styles.values())


def test_a_box_drawn_on_a_canvas_turned_by_90_degrees_lies_where_it_was_drawn() -> None:
    """Recorded on Label Studio 1.23.2: 800×400, a red block at (80, 40)-(240, 120), turned right, block outlined."""
    (item,), entries = read(Path(__file__).parents[1] / "contract" / "export_turned_canvas.json")
    assert entries == ()
    assert item.truth.lesions[0].box.iou(PixelBox(80, 40, 240, 120)) > 0.95


def test_a_turned_canvas_does_not_move_a_box(tmp_path: Path) -> None:
    turned = {**a_region(), "image_rotation": 90}
    (one, other), _ = read(
        an_export(
            tmp_path,
            a_task(an_annotation(a_region()), image="a.jpg"),
            a_task(an_annotation(turned), image="b.jpg"),
        )
    )
    assert one.truth.lesions[0].box == replace(other.truth.lesions[0]).box
