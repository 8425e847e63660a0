"""Any labelling config is matched by type and meaning; what finds no place is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders_serving import bundle, encoded, pixels

from converters import taxonomy
from converters.geometry import ImageSize
from converters.label_studio import results
from converters.label_studio.config import labelling_config
from converters.label_studio.controls import Tier
from converters.taxonomy import Target
from ml_backend.errors import ProtocolError
from ml_backend.images import decode
from ml_backend.label_config import Place, read_config, unmatched
from ml_backend.pipeline import ImagePrediction, Pipeline
from ml_backend.predictions import entry

KNOWN = taxonomy.read()
FOREIGN = """
<View>
  <Image name="picture" value="$photo"/>
  <RectangleLabels name="box" toName="picture">
    <Label value="Malignant melanoma" alias="MM"/><Label value="Mole"/>
    <Label value="Anything else" predicted_values="akiec, bcc ,bkl,df,vasc"/>
  </RectangleLabels>
  <PolygonLabels name="outline" toName="picture"><Label value="Lesion"/></PolygonLabels>
  <Choices name="urgency" toName="picture" perRegion="true">
    <Choice value="low"/><Choice value="moderate"/><Choice value="High severity"/>
  </Choices>
  <Choices name="side" toName="picture"><Choice value="Benign"/><Choice value="Malignant"/></Choices>
  <Choices name="consent" toName="picture"><Choice value="yes"/></Choices>
  <TextArea name="differential" toName="picture" perRegion="true"/>
  <TextArea name="remark" toName="picture"/>
</View>
"""


@pytest.fixture
def prediction(tmp_path: Path) -> ImagePrediction:
    return Pipeline.open(bundle(tmp_path)).predict([decode(encoded(pixels()), "picture")])[0]


def test_the_houses_own_configs_take_everything_every_model_says(prediction: ImagePrediction) -> None:
    for tier in Tier:
        config = read_config(labelling_config(KNOWN, tier), KNOWN)
        for target in (*Target, None):
            assert unmatched(config, target, KNOWN) == ()
        rows = entry(prediction, KNOWN, config)["result"]
        assert [(row["from_name"], row["type"]) for row in rows] == [
            ("diagnosis", "rectanglelabels"),
            ("reading", "textarea"),
        ]


def test_rows_of_the_house_are_those_of_the_converters(prediction: ImagePrediction) -> None:
    own = entry(prediction, KNOWN, read_config(None, KNOWN))["result"]
    assert own == results.encode(prediction.lesions, prediction.size, KNOWN)


def test_a_foreign_config_is_filled_in_its_own_words(prediction: ImagePrediction) -> None:
    config = read_config(FOREIGN, KNOWN)
    assert (config.field, config.image) == ("photo", "picture")
    melanoma = replace(prediction.lesions[0], diagnosis="mel", severity="high", region_id="r")
    rows = entry(replace(prediction, lesions=(melanoma,)), KNOWN, config)["result"]
    said = {row["from_name"]: row for row in rows if row["id" if "id" in row else "type"] in ("r", "choices")}
    assert said["box"]["value"]["rectanglelabels"] == ["MM"] and said["box"]["to_name"] == "picture"
    assert said["urgency"]["value"]["choices"] == ["High severity"] and said["urgency"]["id"] == "r"
    assert said["side"]["value"]["choices"][0] in ("Benign", "Malignant") and "id" not in said["side"]
    assert "%" in said["differential"]["value"]["text"][0]
    outline = next(row for row in rows if row["from_name"] == "outline")
    assert outline["value"]["polygonlabels"] == ["Lesion"] and len(outline["value"]["points"]) == 4
    assert outline["id"] != "r"


def test_predicted_values_gather_several_diagnoses_under_one_label(prediction: ImagePrediction) -> None:
    other = replace(prediction.lesions[0], diagnosis="vasc")
    rows = entry(replace(prediction, lesions=(other,)), KNOWN, read_config(FOREIGN, KNOWN))["result"]
    assert rows[0]["value"]["rectanglelabels"] == ["Anything else"]


def test_answers_for_people_are_left_to_people() -> None:
    config = read_config(FOREIGN, KNOWN)
    assert [(choice.name, choice.place) for choice in config.choices] == [
        ("urgency", Place.REGION),
        ("side", Place.IMAGE),
    ]
    assert [text.name for text in config.texts] == ["differential"]


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("<View><Text name='t' value='$t'/></View>", "no Image tag"),
        ("<View><Image name='i' value='$i'/></View>", "no control draws lesions"),
        (
            "<View><Image name='i' value='$i'/><RectangleLabels name='b' toName='i'><Label value='Car'/>"
            "</RectangleLabels></View>",
            "none of its labels is known",
        ),
        (
            "<View><Image name='i' value='$i'/><RectangleLabels name='b' toName='i'><Label value='Melanoma'/>"
            "</RectangleLabels></View>",
            "'b' has no label for Actinic keratosis",
        ),
    ],
)
def test_what_finds_no_place_is_said(xml: str, said: str) -> None:
    assert any(said in sentence for sentence in unmatched(read_config(xml, KNOWN), Target.DIAGNOSIS, KNOWN))


def test_a_config_that_is_no_xml_or_a_trap_is_refused() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><View>&a;</View>'
    for wrong in ("<View>", bomb):
        with pytest.raises(ProtocolError, match="label_config"):
            read_config(wrong, KNOWN)


def test_a_picture_without_lesions_is_a_prediction_without_rows() -> None:
    nothing = ImagePrediction(ImageSize(10, 10), (), 0.25, "v")
    assert entry(nothing, KNOWN, read_config(None, KNOWN)) == {"result": [], "score": 0.75, "model_version": "v"}
