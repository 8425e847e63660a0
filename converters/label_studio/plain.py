"""The usual case of an export, read in one pass: upright labelled boxes well inside the image, and nothing else.

What is read here is what the general way would read (`general`, `formats.label_studio_read`), at a quarter of the time;
everything unusual, and everything wrong, is left to the general way.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from converters.annotation import Lesion, Origin
from converters.geometry import ImageSize, PixelBox
from converters.taxonomy import Taxonomy
from converters.unchecked import made_from_checked

ORIGINS: Mapping[object, Origin] = {None: Origin.MANUAL, **{origin.value: origin for origin in Origin}}
_KEYS = frozenset({"id", "from_name", "to_name", "type", "value", "origin", "image_rotation"}) | {
    "original_width",
    "original_height",
}
_box = made_from_checked(PixelBox)
_lesion = made_from_checked(Lesion)
image_size = lru_cache(4096)(ImageSize)


def plain_boxes(result: object, taxonomy: Taxonomy) -> tuple[tuple[Lesion, ...], ImageSize] | None:
    """The lesions of a result of nothing but plain boxes on an image of one stated size; None for any other result."""
    if type(result) is not list or not result:
        return None
    try:
        return _boxes(result, taxonomy.words)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _boxes(
    result: list[dict[str, Any]], words: Mapping[str, tuple[str, str]]
) -> tuple[tuple[Lesion, ...], ImageSize] | None:
    wide, high = result[0]["original_width"], result[0]["original_height"]
    if type(wide) is not int or type(high) is not int or wide < 1 or high < 1:
        return None
    lesions = []
    ids = set()
    new_box, new_lesion, origins, known = _box, _lesion, ORIGINS, _KEYS.issuperset
    for row in result:
        value, region_id = row["value"], row["id"]
        (label,) = value["rectanglelabels"]
        code, severity = words[label]
        x0, y0 = value["x"] * wide / 100, value["y"] * high / 100
        x1, y1 = x0 + value["width"] * wide / 100, y0 + value["height"] * high / 100
        if (
            row["type"] != "rectanglelabels"
            or not (0 <= x0 <= x1 <= wide and 0 <= y0 <= y1 <= high)
            or row["original_width"] != wide
            or row["original_height"] != high
            or type(region_id) is not str
            or value.get("rotation")
            or not known(row)
        ):
            return None
        ids.add(region_id)
        box = new_box(x0, y0, x1, y1)
        lesions.append(new_lesion(box, code, severity, None, None, (), region_id, origins[row.get("origin")]))
    return (tuple(lesions), image_size(wide, high)) if len(ids) == len(lesions) else None
