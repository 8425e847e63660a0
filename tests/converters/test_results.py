"""Results of our own labelling configs: lesions, finding and answers, both ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders_converters import TAXONOMY, a_lesion
from hypothesis import given
from hypothesis import strategies as st

from converters.annotation import Finding, Lesion, Origin
from converters.errors import AnnotationError, ConversionError
from converters.geometry import ImageSize, PixelBox, RleMask, RotatedBox
from converters.label_studio import controls, results

SIZE = ImageSize(200, 100)


def test_a_region_to_redact_is_no_lesion_and_comes_back() -> None:
    shapes = (PixelBox(10, 20, 30, 40), RotatedBox(100, 50, 20, 10, 30))
    answer = back([*results.encode([a_lesion("mel")], SIZE, TAXONOMY), *results.encode_redactions(shapes, SIZE)])
    assert (len(answer.lesions), answer.finding) == (1, Finding.LESIONS)
    upright, turned = answer.redactions
    assert isinstance(upright, PixelBox) and upright.iou(shapes[0]) > 1 - 1e-9
    assert isinstance(turned, RotatedBox) and turned.envelope().iou(shapes[1].envelope()) > 1 - 1e-9


def test_an_image_with_nothing_but_a_redaction_was_not_called_anything() -> None:
    assert back(results.encode_redactions((PixelBox(1, 1, 9, 9),), SIZE)).finding is Finding.NOT_LOOKED_AT


def back(rows: list[Any]) -> results.Answer:
    return results.decode(rows, SIZE, TAXONOMY, "task 7")


@pytest.mark.parametrize(
    "lesion",
    [
        a_lesion("mel", region_id="a"),
        a_lesion(None, region_id="b", severity="high"),
        a_lesion(None, region_id="c"),
        a_lesion("nv", region_id="d", score=0.25, origin=Origin.PREDICTION),
    ],
)
def test_a_lesion_comes_back_from_its_region(lesion: Lesion) -> None:
    (found,) = back(results.encode([lesion], SIZE, TAXONOMY)).lesions
    assert found.box.iou(lesion.box) > 1 - 1e-9
    assert (found.diagnosis, found.severity, found.score) == (lesion.diagnosis, lesion.severity, lesion.score)
    assert (found.region_id, found.origin) == (lesion.region_id, lesion.origin)


def test_a_turned_box_keeps_its_turn() -> None:
    shape = RotatedBox(100, 50, 40, 20, 30)
    (found,) = back(results.encode([a_lesion("mel", shape.envelope(), shape=shape)], SIZE, TAXONOMY)).lesions
    assert isinstance(found.shape, RotatedBox) and found.shape.angle == 30


def a_disc(radius: float) -> RleMask:
    rows, columns = np.mgrid[: SIZE.height, : SIZE.width]
    return RleMask.from_array((columns - 60) ** 2 + (rows - 50) ** 2 <= radius**2)


@pytest.mark.parametrize("lesion", [a_lesion("mel", region_id="a"), a_lesion(None, region_id="b", severity="high")])
def test_a_painted_lesion_is_one_lesion_with_its_box(lesion: Lesion) -> None:
    mask = a_disc(20)
    painted = replace(lesion, box=mask.envelope() or lesion.box, shape=mask)
    rows = results.encode([painted], SIZE, TAXONOMY, masks=True)
    assert [row["type"] for row in rows] == ["rectanglelabels", "brushlabels"]
    (found,) = back(rows).lesions
    assert (found.shape, found.diagnosis, found.severity) == (mask, painted.diagnosis, painted.severity)
    assert (found.box, found.region_id) == (painted.box, lesion.region_id)
    assert [row["type"] for row in results.encode([painted], SIZE, TAXONOMY)] == ["rectanglelabels"]


def test_a_mask_elsewhere_or_of_another_label_is_a_lesion_of_its_own() -> None:
    mask = a_disc(20)
    painted = a_lesion("nv", mask.envelope(), region_id="m", shape=mask)
    rows = results.encode([painted], SIZE, TAXONOMY, masks=True)
    other = results.encode([a_lesion("mel", mask.envelope(), region_id="b")], SIZE, TAXONOMY)
    assert [x.diagnosis for x in back([*other, rows[1]]).lesions] == ["mel", "nv"]
    (alone,) = back(rows[1:]).lesions
    assert (alone.shape, alone.box) == (mask, mask.envelope())


def test_the_models_differential_stands_beside_its_box_and_is_no_answer() -> None:
    lesion = a_lesion("mel", probabilities=(("Nevus", 0.22), ("Melanoma", 0.71)))
    rows = results.encode([lesion], SIZE, TAXONOMY)
    assert rows[1]["value"]["text"] == ["Melanoma 71 % · Nevus 22 %"]
    assert back(rows).answers == ()


def test_choices_and_texts_are_answers_and_the_finding_is_told_apart() -> None:
    rows = [results.encode_choice(controls.FINDING, "Lesion-free"), results.encode_text(controls.REASON, "too dark")]
    found = back(rows)
    assert (found.finding, found.get(controls.REASON), found.get("nothing")) == (Finding.LESION_FREE, "too dark", None)
    assert back([]).finding is Finding.NOT_LOOKED_AT


GOOD = results.encode([a_lesion("mel", PixelBox(10, 10, 50, 50))], SIZE, TAXONOMY)[0]
BAD: list[Any] = [
    {**GOOD, "value": {**GOOD["value"], "x": None}},
    {**GOOD, "value": {**GOOD["value"], "rectanglelabels": ["Melanoma", "Dermatofibroma"]}},
    {**GOOD, "value": []},
    {**GOOD, "origin": "elsewhere"},
    {**GOOD, "type": "brushlabels"},
    results.encode_choice(controls.FINDING, "Lesions marked"),
    results.encode_choice(controls.FINDING, "Maybe"),
    {**results.encode_choice("quality", "Good"), "value": {"choices": ["Good", "Poor"]}},
    "row",
]


@pytest.mark.parametrize("row", BAD)
def test_a_row_that_cannot_be_read_names_the_task(row: Any) -> None:
    with pytest.raises(AnnotationError, match="task 7"):
        back([row])


def test_lesions_and_lesion_free_contradict_each_other() -> None:
    with pytest.raises(AnnotationError, match="exactly when lesions are marked"):
        back([GOOD, results.encode_choice(controls.FINDING, "Lesion-free")])


JUNK = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2) | st.just({})


@given(st.sampled_from(sorted(GOOD)), JUNK)
def test_a_mutated_row_is_read_or_refused(name: str, junk: Any) -> None:
    try:
        back([{**GOOD, name: junk}])
    except ConversionError as error:
        assert str(error)


def test_a_note_on_a_box_and_on_its_painted_mask_stays_with_the_lesion() -> None:
    mask = a_disc(20)
    painted = a_lesion("mel", mask.envelope(), region_id="a", shape=mask)
    boxed, brush = results.encode([painted], SIZE, TAXONOMY, masks=True)
    noted = [{**boxed, "meta": {"text": ["blue veil"]}}, {**brush, "hidden": True}]
    (found,) = back(noted).lesions
    assert found.attributes == (("region:hidden", "true"), ("region:note", "blue veil"))
    (row,) = results.encode([found], SIZE, TAXONOMY)
    assert (row["meta"], row["hidden"]) == ({"text": ["blue veil"]}, True)
