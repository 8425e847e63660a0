"""The labelling config of each tier: labels the taxonomy knows, keys that do one thing, colours that say severity."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as ET

import pytest

from converters import taxonomy
from converters.annotation import Lesion
from converters.geometry import PixelBox
from converters.label_studio import controls
from converters.label_studio.config import SEVERITY_COLOURS, labelling_config
from converters.label_studio.controls import Tier
from converters.label_studio.results import reading_text
from converters.taxonomy import Diagnosis, Severity

TAXONOMY = taxonomy.read()


def config(tier: Tier) -> ET.Element:
    return ET.fromstring(labelling_config(TAXONOMY, tier))


@pytest.mark.parametrize("tier", Tier)
def test_every_box_label_is_a_diagnosis_an_open_one_or_redact(tier: Tier) -> None:
    labels = [label.get("value", "") for label in config(tier).iter("Label")]
    others = {*controls.OPEN_LABELS.values(), controls.REDACT}
    named = [label for label in labels if label not in others]
    assert sorted(TAXONOMY.resolve(label).code for label in named) == sorted(TAXONOMY.codes)
    assert set(labels) - set(named) == others


def test_the_brush_has_the_labels_of_the_boxes_and_no_keys() -> None:
    with_brush = ET.fromstring(labelling_config(TAXONOMY, Tier.DERMATOLOGIST, masks=True))
    boxes, brush = (
        {(label.get("value"), label.get("background")) for label in control if label.get("value") != controls.REDACT}
        for kind in ("RectangleLabels", "BrushLabels")
        for control in with_brush.iter(kind)
    )
    assert boxes == brush
    assert all(label.get("hotkey") is None for control in with_brush.iter("BrushLabels") for label in control)
    assert not list(config(Tier.DERMATOLOGIST).iter("BrushLabels"))


@pytest.mark.parametrize("tier", Tier)
def test_the_heat_map_of_the_task_s_own_link_can_be_unfolded(tier: Tier) -> None:
    (shown,) = (ET.fromstring(element.get("value", "")) for element in config(tier).iter("Markdown"))
    assert shown.tag == "details"
    assert [(e.tag, e.get("src") or e.get("href")) for e in shown[1].iter()] == [("a", "$heatmap"), ("img", "$heatmap")]


@pytest.mark.parametrize("tier", Tier)
def test_no_key_does_two_things(tier: Tier) -> None:
    keys = Counter(element.get("hotkey") for element in config(tier).iter() if element.get("hotkey"))
    assert max(keys.values()) == 1


def test_the_colour_of_a_label_is_its_severity() -> None:
    colours = {label.get("value", ""): label.get("background") for label in config(Tier.QA).iter("Label")}
    assert colours["Melanoma"] == SEVERITY_COLOURS[Severity.HIGH]
    assert all(colours[d.name] == SEVERITY_COLOURS[d.severity] for d in TAXONOMY.diagnoses)


def test_a_technician_has_no_verdict_and_reviewers_have_theirs() -> None:
    choices = {
        tier: {c.get("name"): [x.get("value") for x in c.iter("Choice")] for c in config(tier).iter("Choices")}
        for tier in Tier
    }
    assert controls.VERDICT not in choices[Tier.TECHNICIAN]
    for tier, verdicts in controls.VERDICTS.items():
        assert choices[tier][controls.VERDICT] == [verdict.value for verdict in verdicts]


def test_a_class_of_ones_own_gets_a_label_and_keeps_the_others_keys() -> None:
    extended = TAXONOMY.extended([Diagnosis(7, "scc", "Squamous cell carcinoma", Severity.MODERATE, True)])
    labels = {
        label.get("value"): label.get("hotkey")
        for label in ET.fromstring(labelling_config(extended, Tier.QA)).iter("Label")
    }
    assert labels["Squamous cell carcinoma"] == "8"
    assert labels["Melanoma"] == "5"


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ((), ""),
        (
            (("High severity", 0.05), ("Moderate severity", 0.92), ("Low severity", 0.03)),
            "Moderate 92 % · High 5 % · Low 3 %",
        ),
        (
            (("Melanoma", 0.3), ("Melanocytic nevus", 0.55), ("Vascular lesion", 0.15)),
            "Melanocytic nevus 55 % · Melanoma 30 %",
        ),
    ],
)
def test_the_reading_beside_a_box_fits_one_line(shares: tuple[tuple[str, float], ...], text: str) -> None:
    assert reading_text(Lesion(PixelBox(0, 0, 1, 1), probabilities=shares)) == text
