"""Other programs read what we write: the same pictures, the same counts, the same boxes."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_converters import TAXONOMY, a_lesion, an_answer, an_item
from builders_formats import converted, with_bytes
from pycocotools.coco import COCO

from converters.convert import read_all
from converters.dataset import DatasetItem, Split
from converters.formats.contract import ReadSettings
from converters.formats.table import find
from converters.geometry import Ellipse, PixelBox, Polygon, RleMask, RotatedBox
from converters.raster import shape_to_mask

BOXES = {"0": PixelBox(10, 20, 30, 60), "1": PixelBox(0, 0, 100, 80), "2": PixelBox(5.5, 6.25, 50.5, 70)}


@pytest.fixture
def items(tmp_path: Path) -> tuple[DatasetItem, ...]:
    splits = (Split.TRAIN, Split.TRAIN, Split.VAL)
    made = with_bytes(tuple(an_item(f"{name}.png") for name in BOXES), tmp_path / "in")
    return tuple(
        replace(
            item,
            truth=an_answer(a_lesion("mel", BOXES[str(number)]), a_lesion("nv", PixelBox(1, 2, 3, 9))),
            split=split,
        )
        for number, (item, split) in enumerate(zip(made, splits, strict=True))
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_loads_and_measures_boxes_outlines_and_holes(
    items: tuple[DatasetItem, ...], tmp_path: Path
) -> None:
    ring = np.zeros((80, 100), dtype=bool)
    ring[10:60, 10:60] = True
    ring[20:40, 20:40] = False
    shapes = (
        Polygon(((10.0, 10.0), (60.0, 12.0), (40.0, 70.0))),
        RleMask.from_array(ring),
        RotatedBox(50, 40, 30, 20, 25),
        Ellipse(50, 40, 30, 15, 20),
    )
    lesions = tuple(a_lesion("mel", shape.envelope() or BOXES["0"], shape=shape) for shape in shapes)
    converted((replace(items[0], truth=an_answer(*lesions)),), find("coco"), tmp_path / "out")
    coco = loaded(tmp_path / "out/annotations/instances_train.json")
    for row, shape in zip(coco.dataset["annotations"], shapes, strict=True):
        drawn = shape_to_mask(shape, items[0].record.size)
        theirs = coco.annToMask(row).astype(bool)
        assert np.logical_xor(drawn, theirs).sum() <= 0.06 * drawn.sum()
        assert row["area"] == pytest.approx(theirs.sum(), rel=0.06)
        if isinstance(shape, RleMask):
            assert np.array_equal(drawn, theirs)
    assert [row["name"] for row in coco.loadCats(coco.getCatIds())][:7] == list(TAXONOMY.codes)


def loaded(path: Path) -> COCO:
    return COCO(str(path))


def test_packed_runs_that_pycocotools_writes_are_read(items: tuple[DatasetItem, ...], tmp_path: Path) -> None:
    from pycocotools import mask as coco_mask

    from converters.formats.coco_masks import decode_segmentation

    for seed in range(20):
        drawn = np.random.default_rng(seed).random((80, 100)) < seed / 20
        packed = coco_mask.encode(np.asfortranarray(drawn.astype(np.uint8)))
        found = decode_segmentation(
            {"size": packed["size"], "counts": packed["counts"].decode()}, items[0].record.size, "x"
        )
        assert isinstance(found, RleMask) and np.array_equal(found.to_array(), drawn)


@pytest.mark.train
def test_ultralytics_own_check_takes_our_dataset(items: tuple[DatasetItem, ...], tmp_path: Path) -> None:
    pytest.importorskip("ultralytics", reason="needs the train extra")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ultralytics.data.dataset import YOLODataset
        from ultralytics.data.utils import check_det_dataset

        converted(items, find("yolo"), tmp_path / "out")
        data = check_det_dataset(str(tmp_path / "out/data.yaml"), autodownload=False)
        found = YOLODataset(data["train"], data=data, task="detect", augment=False)
    assert data["names"] == dict(enumerate(TAXONOMY.codes))
    labels = {Path(label["im_file"]).stem: label for label in found.labels}
    assert len(labels) == 2
    for name, label in labels.items():
        box = BOXES[name]
        assert label["cls"].ravel().tolist() == [4.0, 5.0]
        wanted = [*box.centre, box.width, box.height]
        assert label["bboxes"][0] * (100, 80, 100, 80) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("target", ["yolo", "coco", "voc"])
def test_supervision_reads_the_same_boxes(items: tuple[DatasetItem, ...], tmp_path: Path, target: str) -> None:
    supervision = pytest.importorskip("supervision")
    converted(items, find(target), tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = read_with(supervision, target, tmp_path / "out")
    seen = {Path(path).stem: detections for path, _, detections in found}
    for name, detections in seen.items():
        order = np.argsort([found.classes[number] for number in detections.class_id])
        names = [found.classes[number] for number in detections.class_id[order]]
        box = BOXES[name]
        edges = (box.x_min, box.y_min, box.x_max, box.y_max)
        assert names == ["mel", "nv"]
        assert detections.xyxy[order][0] == pytest.approx(edges, abs=0.01)
    assert set(seen) == ({"0", "1", "2"} if target == "voc" else {"0", "1"})


def read_with(supervision, target: str, folder: Path):  # type: ignore[no-untyped-def]
    kinds = supervision.DetectionDataset
    if target == "yolo":
        return kinds.from_yolo(str(folder / "images/train"), str(folder / "labels/train"), str(folder / "data.yaml"))
    if target == "coco":
        return kinds.from_coco(str(folder / "images/train"), str(folder / "annotations/instances_train.json"))
    return kinds.from_pascal_voc(str(folder / "JPEGImages"), str(folder / "Annotations"))


def test_categories_keep_their_numbers_whatever_occurs_in_the_data(tmp_path: Path) -> None:
    converted((an_item(diagnosis="vasc"),), find("coco"), tmp_path / "out")
    data = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert data["annotations"][0]["category_id"] == TAXONOMY.resolve("vasc").id + 1


def test_a_voc_file_that_counts_from_nought_is_read_as_it_was_meant(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    box = "<bndbox><xmin>0</xmin><ymin>5</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
    (tmp_path / "Annotations" / "a.xml").write_text(
        f"<annotation><filename>a.jpg</filename><size><width>20</width><height>20</height></size>"
        f"<object><name>nv</name>{box}</object></annotation>"
    )
    (item,), _ = read_all(tmp_path, find("voc"), ReadSettings(TAXONOMY))
    assert item.truth.lesions[0].box == PixelBox(0, 5, 9, 8)


COCO_ROW = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 1200, "bbox": [10, 20, 30, 40]}
OUTLINE = [10, 20, 40, 20, 40, 60, 10, 60.5]
WRONG = {
    "bbox: got (10.0, 20.0, 70.0, 79.0); expected the edges of the segmentation, (10.0, 20.0, 40.0, 60.5)": {
        "bbox": [10, 20, 60, 59]
    },
    "segmentation: got (10.0, 20.0, 40.0, 1e+20); expected a region on 100×80 pixels": {
        "segmentation": [[10, 20, 40, 20, 40, 1e20, 10, 60]]
    },
    "keypoint eye: got (-50.0, 3.0); expected a point inside 100×80 pixels": {"keypoints": [-50, 3, 2]},
}


@pytest.mark.parametrize("said", WRONG)
def test_a_coco_row_that_contradicts_itself_is_refused(tmp_path: Path, said: str) -> None:
    row = {**COCO_ROW, "segmentation": [OUTLINE], **WRONG[said]}
    images = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}]
    categories = [{"id": 1, "name": "mel", "keypoints": ["eye"]}]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": [row], "categories": categories}))
    items, (entry,) = read_all(path, find("coco"), ReadSettings(TAXONOMY))
    assert items == () and said in f"{entry.item.partition('annotation 1, ')[2]}: got {entry.value}; {entry.reason}"


def test_a_voc_file_whose_size_is_no_number_is_refused(items: tuple[DatasetItem, ...], tmp_path: Path) -> None:
    converted(items[:1], find("voc"), tmp_path / "out")
    path = tmp_path / "out" / "Annotations" / "0.xml"
    path.write_text(path.read_text().replace("<width>100<", "<width>NaN<"))
    found, (entry,) = read_all(tmp_path / "out", find("voc"), ReadSettings(TAXONOMY))
    assert found == () and "size/width" in entry.item
