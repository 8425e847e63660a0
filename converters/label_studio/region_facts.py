"""What a region says beside its shape, label and answers: the reader's note, marks of the editor, the region above it.

Label Studio's region panel writes the note to `meta.text`; a lesion keeps all of this as attributes named `region:…`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

_START = "region:"
_NOTE, _META, _PARENT = f"{_START}note", f"{_START}meta", f"{_START}parent"
_MARKS = ("hidden", "locked", "readonly")


def region_facts(row: Mapping[str, Any], parent: bool = True) -> tuple[tuple[str, str], ...]:
    """The attributes of a result row, by name: note, marks that are set, and `parentID` unless `parent` is false.

    A note of one text is kept as it is, any other `meta` as JSON.
    """
    facts = [(_START + mark, "true") for mark in _MARKS if row.get(mark)]
    if meta := row.get("meta"):
        facts += _meta(meta)
    if parent and row.get("parentID"):
        facts.append((_PARENT, str(row["parentID"])))
    return tuple(sorted(facts))


def row_facts(attributes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The fields of a result row that `region_facts` reads back as these attributes; other attributes have none."""
    row: dict[str, Any] = {}
    for name, said in attributes:
        if name == _NOTE:
            row["meta"] = {"text": [said]}
        elif name == _META:
            row["meta"] = orjson.loads(said)
        elif name == _PARENT:
            row["parentID"] = said
        elif is_region_fact(name):
            row[name.removeprefix(_START)] = True
    return row


def is_region_fact(name: str) -> bool:
    """Whether an attribute of this name stands in the region's own row."""
    return name.startswith(_START)


def _meta(meta: object) -> list[tuple[str, str]]:
    if isinstance(meta, dict) and meta.keys() == {"text"}:
        said = meta["text"]
        said = said if isinstance(said, list) else [said]
        if not any(said):
            return []
        if len(said) == 1 and isinstance(said[0], str):
            return [(_NOTE, said[0])]
    return [(_META, orjson.dumps(meta).decode())]
