"""The cells of a metadata table, turned into facts one by one; a cell that cannot be read is unknown and reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converters.annotation import Confirmation, Finding
from converters.errors import GeometryError
from converters.geometry import ImageSize, PixelBox
from converters.taxonomy import Severity, Taxonomy

UNKNOWN = frozenset({"", "unknown", "unk", "na", "n/a", "nan", "none", "null", "-", "?"})
"""Ways in which published tables write "not known"."""

_CONFIRMATIONS = {
    "histo": Confirmation.HISTOPATHOLOGY,
    "histopathology": Confirmation.HISTOPATHOLOGY,
    "biopsy": Confirmation.HISTOPATHOLOGY,
    "follow_up": Confirmation.FOLLOW_UP,
    "follow-up": Confirmation.FOLLOW_UP,
    "serial imaging showing no change": Confirmation.FOLLOW_UP,
    "consensus": Confirmation.CONSENSUS,
    "clinical consensus": Confirmation.CONSENSUS,
    "single image expert consensus": Confirmation.CONSENSUS,
    "confocal": Confirmation.CONFOCAL,
    "confocal microscopy with consensus dermoscopy": Confirmation.CONFOCAL,
    "clinical": Confirmation.CLINICAL,
}
_SEXES = {"male": "male", "m": "male", "female": "female", "f": "female"}
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
_TEXTS = ("mask", "lesion_id", "patient_id", "device", "source")


@dataclass(frozen=True, slots=True)
class CellError:
    """A cell that was not understood: its column, its text and what would have been."""

    column: str
    value: str
    expected: str


def parse_cells(facts: Mapping[str, str], taxonomy: Taxonomy) -> tuple[dict[str, Any], list[CellError]]:
    """The facts of one row as arguments of `MetadataRow`, and the cells that were not understood."""
    given = {name: text for name, text in facts.items() if text.casefold() not in UNKNOWN}
    values: dict[str, Any] = {name: given[name] for name in _TEXTS if name in given}
    errors: list[CellError] = []
    for column, (field, parse, expected) in _PARSERS.items():
        if column in given:
            try:
                values[field] = parse(given[column])
            except (ValueError, KeyError, OverflowError):
                errors.append(CellError(column, given[column], expected))
    _add_diagnosis(given, taxonomy, values, errors)
    _add_size(given, values, errors)
    _add_box(given, values, errors)
    values["extra"] = tuple((name[6:], text) for name, text in sorted(given.items()) if name.startswith("extra:"))
    return values, errors


def _add_diagnosis(
    given: Mapping[str, str], taxonomy: Taxonomy, values: dict[str, Any], errors: list[CellError]
) -> None:
    if "dx" not in given:
        return
    found = taxonomy.find(given["dx"])
    if found is None:
        errors.append(CellError("dx", given["dx"], f"one of {', '.join(taxonomy.codes)} or an alias"))
    else:
        values |= {"diagnosis": found.code, "severity": Severity(found.severity).value}


def _add_size(given: Mapping[str, str], values: dict[str, Any], errors: list[CellError]) -> None:
    if "width" not in given and "height" not in given:
        return
    try:
        values["size"] = ImageSize(int(given["width"]), int(given["height"]))
    except (KeyError, ValueError, GeometryError):
        text = f"{given.get('width', '')}×{given.get('height', '')}"
        errors.append(CellError("width, height", text, "two whole numbers of pixels"))


def _add_box(given: Mapping[str, str], values: dict[str, Any], errors: list[CellError]) -> None:
    if not any(name in given for name in _BOX):
        return
    try:
        x, y, width, height = (_finite(given[name]) for name in _BOX)
        box = PixelBox(x, y, x + width, y + height)
        inside = box if "size" not in values else box.clipped(values["size"])
        if box.area <= 0 or inside != box or min(x, y) < 0:
            raise ValueError(box)
    except (KeyError, ValueError, GeometryError):
        text = " ".join(given.get(name, "") for name in _BOX)
        errors.append(CellError("bbox", text, "x, y, width and height in pixels inside the image"))
    else:
        values["box"] = box


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number


def _age(text: str) -> float:
    if not 0 <= (age := _finite(text)) <= 130:
        raise ValueError(text)
    return age


def _skin_type(text: str) -> int:
    roman = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6}
    number = roman.get(text.casefold()) or _finite(text)
    if number not in (1, 2, 3, 4, 5, 6):
        raise ValueError(text)
    return int(number)


_PARSERS: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "age": ("age", _age, "an age in years from 0 to 130"),
    "sex": ("sex", lambda text: _SEXES[text.casefold()], "male or female"),
    "site": ("site", str.casefold, "a body site"),
    "skin_type": ("skin_type", _skin_type, "a Fitzpatrick type from 1 to 6"),
    "confirmation": (
        "confirmation",
        lambda text: _CONFIRMATIONS[text.casefold()],
        f"one of {', '.join(_CONFIRMATIONS)}",
    ),
    "consent": ("consent", lambda text: _TRUTHS[text.casefold()], "yes or no"),
    "synthetic": ("synthetic", lambda text: _TRUTHS[text.casefold()], "yes or no"),
    "finding": ("finding", lambda text: Finding(text.casefold()), f"one of {', '.join(Finding)}"),
}
