"""A large JSON object is read row by row as if it had been read whole, or refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import DatasetError
from converters.formats import large_json
from converters.formats.large_json import open_object

TEXTS = st.text(alphabet='ab"\\{}[],: é', max_size=6)
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def is_mixed(value: object) -> bool:
    return isinstance(value, list) and len({isinstance(part, dict) for part in value}) > 1


PLAIN = VALUES.filter(lambda value: not is_mixed(value))
OBJECTS = st.dictionaries(TEXTS, PLAIN | st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=4), max_size=4)


def whole(path: Path) -> dict[str, Any]:
    with open_object(path) as found:
        rows = {key: list(found.rows(key)) for key in found.plain if found.count(key)}
        return {**found.plain, **rows}


@settings(deadline=None, max_examples=60)
@given(OBJECTS, st.integers(1, 40), st.sampled_from([None, 2]))
def test_row_by_row_and_whole_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any], block: int, indent: int | None
) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_json, "_BLOCK", block)
        assert whole(path) == orjson.loads(path.read_bytes())


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"a":[{},{}', '{"a":[{} {}]}', '{"a":[{},,{}]}', '{"a":[{},3]}', '{"a":[{}],}', '{"a":[{"b":}]}'],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DatasetError, match=r"x\.json"):
        whole(tmp_path / "x.json")
