"""A project's labelling config, whatever it looks like, matched with what the champion can say.

Controls are found by type and by the labels they offer: a label stands for a diagnosis (code, name or alias of the
taxonomy), for a severity, for malignancy, or for any lesion. `value`, `alias` and `predicted_values` are looked at.
What finds no place is reported, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeXml

from converters.annotation import Lesion
from converters.label_studio import controls
from converters.taxonomy import MALIGNANCY_CLASSES, Severity, Target, Taxonomy
from ml_backend.errors import ProtocolError
from ml_backend.reading import Reading

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

LESION = "lesion"
_LONGEST = 200_000
_ANY_LESION = frozenset({"lesion", "skin lesion", "lesion, not classified"})
_TEXTS = frozenset({controls.READING, "differential"})
_REGION_TAGS = {
    "RectangleLabels": "rectangle",
    "PolygonLabels": "polygon",
    "BrushLabels": "brush",
    "EllipseLabels": "ellipse",
}


class Place(StrEnum):
    """Where an answer belongs: to one region, or to the whole picture."""

    REGION = "region"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class RegionControl:
    """A control that draws: its name, its kind (`rectangle`, `polygon`, `brush`, `ellipse`), and label by meaning."""

    name: str
    kind: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ChoiceControl:
    """A choice that the model can answer, for a region or for the picture; value by meaning."""

    name: str
    place: Place
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TextControl:
    """A text that shows the model's differential."""

    name: str
    place: Place


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """What of a labelling config the model can fill, and a sentence for everything that it cannot.

    `field` is the key of task data with the picture's address; `image` is the name of the picture's tag.
    """

    field: str
    image: str
    regions: tuple[RegionControl, ...] = ()
    choices: tuple[ChoiceControl, ...] = ()
    texts: tuple[TextControl, ...] = ()
    problems: tuple[str, ...] = ()


def meanings(lesion: Lesion, reading: Reading | None, taxonomy: Taxonomy) -> tuple[str, ...]:
    """What a lesion can be called, finest first: diagnosis, severity, malignancy, lesion."""
    found = []
    if lesion.diagnosis is not None:
        found.append(f"diagnosis:{taxonomy.resolve(lesion.diagnosis).code}")
    if lesion.severity is not None:
        found.append(f"severity:{lesion.severity}")
    if reading is not None:
        found.append(f"malignancy:{MALIGNANCY_CLASSES[reading.malignant >= 0.5]}")
    return (*found, LESION)


@lru_cache(maxsize=64)
def read_config(xml: str | None, taxonomy: Taxonomy) -> LabelConfig:
    """The matched config; without one, the house's own is assumed. Raises ProtocolError for XML that is none."""
    if not xml:
        return _house(taxonomy)
    if len(xml) > _LONGEST:
        raise ProtocolError("label_config", f"{len(xml)} characters", f"at most {_LONGEST}", "Shorten it.")
    root = _parsed(xml)
    image = next(iter(root.iter("Image")), None)
    field = str(image.get("value", "")).removeprefix("$") if image is not None else ""
    name = str(image.get("name", "")) if image is not None else ""
    if not field or not name:
        return LabelConfig(controls.IMAGE, controls.IMAGE, problems=("no Image tag: nothing to predict on",))
    tags = [tag for tag in root.iter() if name in str(tag.get("toName", "")).split(",")]
    regions = tuple(control for tag in tags if (control := _region(tag, taxonomy)) is not None)
    choices = tuple(choice for tag in tags if (choice := _choice(tag, taxonomy)) is not None)
    texts = tuple(TextControl(str(t.get("name")), _place(t)) for t in tags if _is_text(t))
    return LabelConfig(field, name, regions, choices, texts, tuple(_problems(tags, regions)))


def unmatched(
    config: LabelConfig, target: Target | None, taxonomy: Taxonomy, outlines: bool = False
) -> tuple[str, ...]:
    """A sentence for everything that a model of this target (None: a detector alone) can say, not the config."""
    offers = [(c.name, "label", set(c.labels)) for c in config.regions]
    offers += [(c.name, "choice", set(c.values)) for c in config.choices]
    answers = list(_answers(target, taxonomy))
    found = list(config.problems)
    if not outlines:
        brushes = (control.name for control in config.regions if control.kind == "brush")
        found += [f"{name!r} is a brush: the serving detector has no masks" for name in brushes]
    for name, what, offered in offers:
        homeless = [answer for answer, meant in answers if not meant & offered]
        if homeless:
            found.append(f"{name!r} has no {what} for {', '.join(homeless)}: left out there")
    return tuple(found)


def label_for(control: RegionControl | ChoiceControl, found: Iterable[str]) -> str | None:
    """The control's label for the finest meaning it offers, or None where it offers none of them."""
    offered = control.labels if isinstance(control, RegionControl) else control.values
    return next((offered[meaning] for meaning in found if meaning in offered), None)


def _parsed(xml: str) -> Element:
    try:
        root: Element = SafeXml.fromstring(xml)
    except (SafeXml.ParseError, DefusedXmlException, ValueError) as error:
        raise ProtocolError("label_config", str(error)[:200], "a labelling config in XML", "Correct it.") from error
    return root


def _house(taxonomy: Taxonomy) -> LabelConfig:
    from converters.label_studio.config import labelling_config

    return read_config(labelling_config(taxonomy, controls.Tier.TECHNICIAN), taxonomy)


def _region(tag: Element, taxonomy: Taxonomy) -> RegionControl | None:
    kind = _REGION_TAGS.get(tag.tag)
    labels = _meant(tag.iter("Label"), taxonomy) if kind else {}
    return RegionControl(str(tag.get("name")), kind, labels) if kind and labels else None


def _choice(tag: Element, taxonomy: Taxonomy) -> ChoiceControl | None:
    values = _meant(tag.iter("Choice"), taxonomy) if tag.tag == "Choices" else {}
    values.pop(LESION, None)
    return ChoiceControl(str(tag.get("name")), _place(tag), values) if values else None


def _is_text(tag: Element) -> bool:
    return tag.tag == "TextArea" and str(tag.get("name")) in _TEXTS


def _place(tag: Element) -> Place:
    return Place.REGION if str(tag.get("perRegion", "")).lower() == "true" else Place.IMAGE


def _meant(tags: Iterable[Element], taxonomy: Taxonomy) -> dict[str, str]:
    """Label by meaning; of two labels with one meaning the first counts."""
    found: dict[str, str] = {}
    for tag in tags:
        value, alias = str(tag.get("value", "")), str(tag.get("alias", ""))
        names = [value, alias, *str(tag.get("predicted_values", "")).split(",")]
        for name in filter(None, (" ".join(name.split()) for name in names)):
            if (meaning := _meaning(name, taxonomy)) is not None:
                found.setdefault(meaning, alias or value)
    return found


def _meaning(name: str, taxonomy: Taxonomy) -> str | None:
    if (diagnosis := taxonomy.find(name)) is not None:
        return f"diagnosis:{diagnosis.code}"
    folded = name.casefold()
    for severity, label in controls.OPEN_LABELS.items():
        if severity is not None and folded in (label.casefold(), severity, f"{severity} severity"):
            return f"severity:{severity}"
    if folded in MALIGNANCY_CLASSES:
        return f"malignancy:{folded}"
    return LESION if folded in _ANY_LESION else None


def _problems(tags: list[Element], regions: tuple[RegionControl, ...]) -> Iterable[str]:
    if not regions:
        yield "no control draws lesions: add RectangleLabels with diagnoses, severities or 'Lesion'"
    for tag in tags:
        if tag.tag in _REGION_TAGS and str(tag.get("name")) not in {control.name for control in regions}:
            yield f"{tag.tag} {tag.get('name')!r}: none of its labels is known to the taxonomy"


def _answers(target: Target | None, taxonomy: Taxonomy) -> Iterable[tuple[str, set[str]]]:
    """Everything a model of a target can say: its name, and the meanings that can stand for it."""
    if target is Target.DIAGNOSIS:
        for d in taxonomy.diagnoses:
            meant = {f"diagnosis:{d.code}", f"severity:{d.severity.value}", _side(d.malignant), LESION}
            yield d.name, meant
    elif target is Target.SEVERITY:
        for severity in Severity:
            yield f"{severity.value} severity", {f"severity:{severity.value}", LESION}
    elif target is Target.MALIGNANCY:
        yield from ((side, {f"malignancy:{side}", LESION}) for side in MALIGNANCY_CLASSES)
    else:
        yield "a lesion without a reading", {LESION}


def _side(malignant: bool) -> str:
    return f"malignancy:{MALIGNANCY_CLASSES[malignant]}"
