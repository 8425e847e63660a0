"""Label Studio exports: every region type, odd tasks, and messages that name what is wrong."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders_converters import TAXONOMY, picture
from builders_tasks import HEIGHT, WIDTH, a_choice, a_region, a_task, an_annotation, an_export, read, to
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.annotation import Finding, KeyPoint, TruthLevel
from converters.convert import LossError
from converters.errors import AnnotationError, ConversionError
from converters.formats.table import sniffed
from converters.geometry import Ellipse, ImageSize, PixelBox, Polygon, RleMask
from converters.label_studio.addresses import ImageAddress, ImageFolder
from converters.label_studio.brush import decode_brush, encode_brush
from converters.label_studio.policy import ExportPolicy, read_policy
from converters.label_studio.stream import read_elements
from converters.report import Kind
from converters.truth import TruthPolicy


def only(tmp_path: Path, *result: dict[str, Any], **settings: Any) -> Any:
    items, entries = read(an_export(tmp_path, a_task(an_annotation(*result))), **settings)
    assert entries == (), [str(entry) for entry in entries]
    return items[0].truth


def test_an_ellipse_lies_in_pixels_of_an_oblong_image(tmp_path: Path) -> None:
    region = a_region("Melanoma", "ellipse", x=50, y=50, radiusX=10, radiusY=20, rotation=30)
    assert only(tmp_path, region).lesions[0].shape == Ellipse(100, 50, 20, 20, 30)


def test_a_closed_polygon_loses_its_doubled_point(tmp_path: Path) -> None:
    points = [[0, 0], [50, 0], [50, 50], [0, 0]]
    shape = only(tmp_path, a_region("Melanoma", "polygon", points=points)).lesions[0].shape
    assert shape == Polygon(((0, 0), (100, 0), (100, 50)))


def test_a_brush_mask_keeps_its_pixels(tmp_path: Path) -> None:
    mask = np.zeros((100, 200), dtype=bool)
    mask[10:20, 30:50] = True
    region = a_region("Melanoma", "brush", format="rle", rle=encode_brush(mask))
    lesion = only(tmp_path, region).lesions[0]
    assert (lesion.shape, lesion.box) == (RleMask.from_array(mask), PixelBox(30, 10, 50, 20))


def test_points_belong_to_their_parent_region(tmp_path: Path) -> None:
    point = a_region("centre", "keypoint", id="p1", x=25, y=40, width=0.5, parentID="r1")
    assert only(tmp_path, a_region(), point).lesions[0].keypoints == (KeyPoint(50, 40, "centre"),)


def test_per_region_answers_stay_with_their_region_and_the_rest_with_the_image(tmp_path: Path) -> None:
    border = {**a_choice("border", "irregular"), "id": "r1"}
    stars = {"id": "q", "from_name": "stars", "to_name": "image", "type": "rating", "value": {"rating": 4}}
    remark = {"id": "t", "from_name": "remark", "to_name": "image", "type": "textarea", "value": {"text": ["hairy"]}}
    several = {"id": "m", "from_name": "signs", "to_name": "image", "type": "choices", "value": {"choices": ["a", "b"]}}
    found = only(tmp_path, a_region(), border, stars, remark, several)
    assert found.lesions[0].attributes == (("border", "irregular"),)
    assert dict(found.answers) == {"rating:stars": "4", "text:remark": "hairy", "choices:signs": '["a","b"]'}


def test_a_plain_shape_with_a_separate_label_is_one_region(tmp_path: Path) -> None:
    shape = {**a_region(), "type": "rectangle"}
    del shape["value"]["rectanglelabels"]
    label = {"id": "r1", "from_name": "l", "to_name": "image", "type": "labels", "value": {"labels": ["mel"]}}
    assert only(tmp_path, shape, label).lesions[0].diagnosis == "mel"


NOTES = {
    "a note": ({"meta": {"text": ["blue veil"]}}, (("region:note", "blue veil"),)),
    "two notes": ({"meta": {"text": ["veil", "dots"]}}, (("region:meta", '{"text":["veil","dots"]}'),)),
    "other meta": ({"meta": {"text": ["veil"], "seen": 2}}, (("region:meta", '{"text":["veil"],"seen":2}'),)),
    "marks": (
        {"hidden": True, "locked": False, "readonly": True},
        (("region:hidden", "true"), ("region:readonly", "true")),
    ),
    "a parent": ({"parentID": "r0"}, (("region:parent", "r0"),)),
    "nothing said": ({"meta": {"text": []}, "hidden": False, "parentID": None}, ()),
}


@pytest.mark.parametrize("name", NOTES)
def test_what_a_region_says_beside_its_label_stays_with_its_lesion_and_comes_back(tmp_path: Path, name: str) -> None:
    said, attributes = NOTES[name]
    path = an_export(tmp_path, a_task(an_annotation({**a_region(), **said})))
    (item,), _ = read(path)
    assert item.truth.lesions[0].attributes == attributes
    assert to("label-studio", path, tmp_path / "out").failures == ()
    (back,), _ = read(tmp_path / "out")
    assert back.truth.lesions[0].attributes == attributes
    row = json.loads((tmp_path / "out" / "tasks.json").read_text())[0]["annotations"][0]["result"][0]
    assert {key: row[key] for key in ("meta", "hidden", "readonly", "parentID") if key in row} == {
        key: value for key, value in said.items() if value and attributes
    }


def test_a_note_that_a_format_has_no_words_for_is_in_its_report(tmp_path: Path) -> None:
    path = an_export(tmp_path, a_task(an_annotation({**a_region(), "meta": {"text": ["blue veil"]}})))
    (entry,) = (entry for entry in to("yolo", path, tmp_path / "yolo").entries if entry.field == "facts")
    assert "attributes" in entry.value and entry.kind is Kind.EXPECTED
    assert to("coco", path, tmp_path / "coco").failures == ()
    assert any("blue veil" in path.read_text() for path in (tmp_path / "coco").rglob("*.json"))


def test_a_note_on_a_point_or_on_a_redaction_becomes_a_text_of_the_image(tmp_path: Path) -> None:
    point = a_region("centre", "keypoint", id="p1", x=25, y=40, width=0.5, parentID="r1")
    burned = a_region("Redact", id="r2", x=50)
    noted = ({**point, "meta": {"text": ["here"]}}, {**burned, "meta": {"text": ["a face"]}})
    found = only(tmp_path, a_region(), *noted)
    assert dict(found.answers) == {"text:note of p1": "here", "text:note of r2": "a face"}
    assert found.lesions[0].keypoints == (KeyPoint(50, 40, "centre"),) and len(found.redactions) == 1


def test_a_plain_shape_with_a_separate_redact_label_is_burned_out(tmp_path: Path) -> None:
    shape = {**a_region(id="r2"), "type": "rectangle"}
    del shape["value"]["rectanglelabels"]
    label = {"id": "r2", "from_name": "l", "to_name": "image", "type": "labels", "value": {"labels": ["redact"]}}
    assert len(only(tmp_path, a_region(), shape, label).redactions) == 1


def test_links_between_regions_are_kept(tmp_path: Path) -> None:
    link = {"type": "relation", "from_id": "r1", "to_id": "r2", "direction": "bi", "labels": ["same lesion"]}
    found = only(tmp_path, a_region(), a_region(id="r2", x=50), link)
    assert (found.relations[0].from_region, found.relations[0].labels) == ("r1", ("same lesion",))


def test_a_region_labelled_redact_is_no_lesion(tmp_path: Path) -> None:
    found = only(tmp_path, a_region(), a_region("Redact", id="r2", x=50))
    assert len(found.lesions) == 1 and found.redactions == (PixelBox(100, 20, 160, 60),)


def test_a_submitted_empty_result_confirms_nothing_unless_the_policy_says_so(tmp_path: Path) -> None:
    path = an_export(tmp_path, a_task(an_annotation(), meta={"dermloop": {"record": {"size": [9, 9]}}}))
    items, entries = read(path)
    assert items == () and entries[0].reason == "submitted without a region or a finding"
    (item,), _ = read(path, policy=ExportPolicy(empty=Finding.LESION_FREE))
    assert item.truth.finding is Finding.LESION_FREE


def test_drafts_and_predictions_are_no_truth_unless_the_policy_asks_for_models(tmp_path: Path) -> None:
    draft = {"id": 5, "user": "a@b", "created_at": "2026-01-01T00:00:00Z", "result": [a_region()]}
    prediction = {"id": 6, "model_version": "m-1", "result": [a_region(score=0.5)]}
    path = an_export(tmp_path, a_task(drafts=[draft], predictions=[prediction]))
    assert read(path)[1][0].reason == "only drafts"
    (item,), _ = read(path, policy=ExportPolicy(truth=TruthPolicy(TruthLevel.MODEL)))
    assert (item.truth.model_version, item.truth.lesions[0].score) == ("m-1", 0.5)


def test_readers_count_as_the_policy_file_says(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('minimum = "dermatologist"\n[readers]\n"dora@example.org" = "dermatologist"\n')
    junior = an_annotation(a_region("Melanocytic nevus"), id=1, completed_by={"email": "tim@example.org"})
    senior = an_annotation(a_region("Melanoma"), id=2, completed_by={"email": "dora@example.org"})
    (item,), _ = read(an_export(tmp_path, a_task(junior, senior)), policy=read_policy(policy))
    assert (item.truth.author, item.truth.level) == ("dora@example.org", TruthLevel.DERMATOLOGIST)


@pytest.mark.parametrize(
    "text", ['minimum = "boss"', "colour = 1", "agreement_iou = 3", "readers = 3", "=", 'empty="x"']
)
def test_a_policy_that_says_something_else_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ConversionError, match=r"p\.toml"):
        read_policy(tmp_path / "p.toml")


BAD = {
    "unknown label": (a_region("Wart"), "region r1: got 'Wart'; expected one of akiec"),
    "outside": (a_region(x=90), "expected a box inside 200×100 pixels"),
    "no number": (a_region(width=None), "the numbers of a rectangle"),
    "not finite": (a_region(width=float("nan")), "rectangle|JSON"),
    "negative": (a_region(width=-3), "the numbers of a rectangle"),
    "two labels": (a_region(rectanglelabels=["mel", "nv"]), "one diagnosis for a region"),
    "foreign type": ({**a_region(), "type": "timeserieslabels"}, "timeserieslabels"),
    "score": (a_region(score=7), "a number from 0 to 1"),
    "origin": (a_region(origin="elsewhere"), "manual, prediction"),
    "mask": (a_region("mel", "brush", format="rle", rle=[1, 2, 3]), "a brush mask of 200×100"),
    "two points": (a_region("mel", "polygon", points=[[0, 0], [1, 1]]), "at least three points"),
    "no size": ({k: v for k, v in a_region().items() if k != "original_width"}, "original_width"),
    "finding": (a_choice("finding", "Lesions marked"), "regions exactly when lesions are marked"),
    "value": ({**a_region(), "value": None}, "a value object"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_region_names_file_task_region_value_and_cure(tmp_path: Path, name: str) -> None:
    region, expected = BAD[name]
    path = an_export(tmp_path, a_task(an_annotation(region)))
    with pytest.raises(ConversionError) as caught:
        to("yolo", path, tmp_path / "ours")
    assert "export.json" in str(caught.value) and ("task 1" in str(caught.value) or "byte" in str(caught.value))
    assert any(part in str(caught.value) for part in expected.split("|")), str(caught.value)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    "task", [{"data": 3}, {"annotations": 3}, {"annotations": [3]}, {"data": {"a": "x", "b": "y"}}]
)
def test_a_malformed_task_is_named(tmp_path: Path, task: dict[str, Any]) -> None:
    _, entries = read(an_export(tmp_path, {**a_task(an_annotation(a_region())), **task}))
    assert entries[0].kind == "refused" and "task 1" in entries[0].item


def test_one_image_in_two_tasks_is_refused(tmp_path: Path) -> None:
    path = an_export(tmp_path, a_task(an_annotation(a_region())), a_task(an_annotation(a_region())))
    with pytest.raises(LossError, match=r"export\.json, .*expected each image once"):
        to("yolo", path, tmp_path / "ours")


def test_an_image_of_another_size_than_was_annotated_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(picture(60, 40))
    _, entries = read(an_export(tmp_path, a_task(an_annotation(a_region()))), images=tmp_path / "images")
    assert "200×100" in entries[0].value and "60×40" in entries[0].reason


def test_images_are_found_below_a_folder_by_the_longest_common_path(tmp_path: Path) -> None:
    for name in ("one/a.jpg", "two/a.jpg", "b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    folder = ImageFolder.scan(tmp_path)
    assert folder.find(ImageAddress("s3", "set/two/a.jpg"), "t") == tmp_path / "two/a.jpg"
    assert folder.find(ImageAddress("upload", "1/0a1b2c3d-b.jpg"), "t") == tmp_path / "b.jpg"
    for path in ("a.jpg", "c.jpg"):
        with pytest.raises(ConversionError, match="task 3"):
            folder.find(ImageAddress("path", path), "task 3")


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_a_stream_gives_every_task_whatever_the_block(tmp_path: Path, block: int) -> None:
    tasks = [{"id": n, "text": 'quotes " and \\ and ]}[{ ä', "deep": [{"a": [1, {}]}]} for n in range(20)]
    for text in (json.dumps(tasks, indent=2), json.dumps(tasks), "\n".join(json.dumps(task) for task in tasks)):
        (tmp_path / "t.json").write_text(text)
        assert list(read_elements(tmp_path / "t.json", block)) == tasks


@pytest.mark.parametrize(
    "text", ["[{}", "[{},", "{}]", "[{} {}]", "[1]", "[{}]x", "nothing", '[{"a": }]', "[{}, 3]", '["a"]']
)
def test_a_stream_that_is_no_list_of_tasks_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(AnnotationError, match=r"t\.json, .*byte"):
        list(read_elements(tmp_path / "t.json"))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.randoms())
def test_brush_masks_come_back_and_label_studios_own_reader_agrees(width: int, height: int, random: Any) -> None:
    from label_studio_sdk.converter import brush

    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    packed = encode_brush(mask)
    assert np.array_equal(decode_brush(packed, ImageSize(width, height), "x"), mask)
    assert np.array_equal(brush.decode_rle(packed).reshape(height, width, 4)[:, :, 3] > 0, mask)


def test_mutated_exports_are_read_or_refused_and_never_crash(tmp_path: Path) -> None:
    survive(tmp_path, 150)


@pytest.mark.slow
def test_a_thousand_mutated_exports_are_read_or_refused_and_never_crash(tmp_path: Path) -> None:
    survive(tmp_path, 1000)


def survive(tmp_path: Path, count: int) -> None:
    generator = random.Random(7)
    parts = [
        a_region(),
        a_region("nv", "polygon", id="p", points=[[0, 0], [9, 0], [9, 9]]),
        a_choice("finding", "Ungradable"),
    ]
    whole = json.dumps([a_task(an_annotation(*parts[:2])), a_task(an_annotation(parts[2]))]).encode()
    refused = 0
    for number in range(count):
        content = mutated(whole, generator)
        path = tmp_path / f"{number % 10}.json"
        path.write_bytes(content)
        try:
            items, entries = read(path)
        except ConversionError as error:
            assert path.name in str(error)
            refused += 1
            continue
        refused += bool(entries)
        for item in items:
            size = item.record.size
            assert all(lesion.box.clipped(size).iou(lesion.box) > 0.99 or lesion.shape for lesion in item.truth.lesions)
    assert refused > 0.3 * count


def mutated(whole: bytes, generator: random.Random) -> bytes:
    """The bytes with one to three places cut, doubled or overwritten."""
    content = bytearray(whole)
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(content))
        kind = generator.random()
        if kind < 0.3:
            del content[at : at + generator.randint(1, 30)]
        elif kind < 0.5:
            content[at:at] = content[at : at + generator.randint(1, 30)]
        else:
            content[at] = generator.choice(b'0123456789-"{}[],:enul\xff')
    return bytes(content)


def test_the_taxonomy_resolves_names_and_codes_alike(tmp_path: Path) -> None:
    assert only(tmp_path, a_region("mel")).lesions[0].diagnosis == TAXONOMY.resolve("Melanoma").code


def test_two_tasks_of_one_number_are_refused_by_file_and_number(tmp_path: Path) -> None:
    tasks = [a_task(an_annotation(a_region()), image=f"s3://derm/{name}.jpg") for name in ("a", "b")]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    items, (entry,) = read(tmp_path / "export.json")
    assert (len(items), entry.kind, entry.item) == (1, Kind.REFUSED, "export.json, task 1")
    assert entry.reason == "expected an id of its own for each task. Export the project again."


def test_an_unfinished_draft_stops_nobody_and_says_how_large_the_image_is(tmp_path: Path) -> None:
    draft = {"id": 5, "user": "a@b", "result": [a_region("Wart")]}
    free = a_task(an_annotation(a_choice("finding", "Lesion-free")), image="s3://d/b.jpg", drafts=[draft])
    (drawn, empty), entries = read(an_export(tmp_path, a_task(an_annotation(a_region()), drafts=[draft]), free))
    assert drawn.truth.lesions[0].diagnosis == "mel" and empty.record.size == ImageSize(WIDTH, HEIGHT)
    assert [(entry.kind, entry.value) for entry in entries] == [(Kind.EXPECTED, "1 draft")] * 2


def test_other_readers_answers_that_stay_behind_are_on_the_list(tmp_path: Path) -> None:
    first = an_annotation(a_region(), id=1, completed_by=1)
    second = an_annotation(a_region(x=10.1), id=2, completed_by=2)
    skipped = an_annotation(id=3, completed_by=3, was_cancelled=True)
    (item,), (entry,) = read(an_export(tmp_path, a_task(first, second, skipped)))
    assert item.truth.annotation_id == "1"
    assert (entry.kind, entry.item, entry.value) == (Kind.EXPECTED, "export.json, task 1", "1 other answer")


def test_readers_who_disagree_are_named_once_with_their_task_and_a_cure(tmp_path: Path) -> None:
    one, other = (an_annotation(a_region(name), id=n, completed_by=n) for n, name in enumerate(("mel", "nv"), 1))
    _, (entry,) = read(an_export(tmp_path, a_task(one, other, image="s3://d/x.jpg")))
    assert entry.item == "export.json, task 1, s3://d/x.jpg" and "--truth-policy" in entry.reason


def test_an_answer_below_the_minimum_is_told_from_one_that_says_nothing(tmp_path: Path) -> None:
    path = an_export(tmp_path, a_task(an_annotation(a_region())))
    _, (entry,) = read(path, policy=ExportPolicy(truth=TruthPolicy(TruthLevel.QA)))
    assert entry.reason == "no answer is as high as the policy's minimum"


def test_a_point_in_a_redacted_region_is_not_dropped(tmp_path: Path) -> None:
    point = a_region("Melanoma", "keypoint", id="p", x=12, y=22, parentID="r1")
    found = only(tmp_path, a_region("redact"), point)
    assert len(found.redactions) == 1 and found.lesions[0].keypoints == (KeyPoint(24, 22, "Melanoma"),)


def test_an_empty_brush_names_its_region(tmp_path: Path) -> None:
    region = a_region("Melanoma", "brush", format="rle", rle=encode_brush(np.zeros((HEIGHT, WIDTH), dtype=bool)))
    _, (entry,) = read(an_export(tmp_path, a_task(an_annotation(region))))
    assert entry.item == "export.json, task 1, annotation 1, region r1" and "no pixel" in entry.value


def test_a_json_min_export_says_what_to_export_instead(tmp_path: Path) -> None:
    path = tmp_path / "min.json"
    path.write_text('[{"id":1,"image":"a.jpg","label":[],"annotator":1,"annotation_id":2}]')
    assert sniffed(path).name == "label-studio"
    _, (entry,) = read(path)
    assert "not as JSON-MIN" in entry.reason
