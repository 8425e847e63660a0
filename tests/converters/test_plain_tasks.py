"""The fast way of reading usual tasks says what the general way says, or nothing at all."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from builders_converters import TAXONOMY
from builders_tasks import a_region, a_task, an_annotation
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import ConversionError
from converters.formats.contract import ReadSettings
from converters.formats.label_studio_read import Source, any_item, plain_item

SOURCE = Source(Path("export.json"), ReadSettings(TAXONOMY), None)
ADDRESSES = (
    "s3://derm/images/1.jpg",
    "/data/upload/1/0a1b2c3d-a.jpg",
    "https://host:8080/a b/c.png",
    "s3://derm",
    "s3://derm/..",
    "data:image/png;base64,x/y.png",
    "/data/local-files/?d=a/b.jpg",
    "gs://b/c%20d.jpg",
    "a.jpg",
    "",
    "s3://ü/é.jpg",
)
ODD: tuple[Any, ...] = (None, "", "x", 0, -1, 1.5, 7e300, True, [], ["mel"], ["mel", "nv"], ["Wart"], {}, {"a": 1})


def general(task: dict[str, Any]) -> object:
    try:
        return any_item(task, "task", SOURCE)
    except (ConversionError, KeyError, TypeError, ValueError, AttributeError) as error:
        return error


def same(task: dict[str, Any]) -> bool:
    """Whether the fast way took the task; what it makes of it has to be what the general way makes of it."""
    plain = plain_item(task, SOURCE)
    assert plain is None or plain == general(task)
    return plain is not None


def a_plain_task(**facts: Any) -> dict[str, Any]:
    return a_task(an_annotation(a_region(), a_region("nv", id="r2", x=0.5)), image=ADDRESSES[0], **facts)


def test_a_usual_task_is_read_the_fast_way() -> None:
    assert same(a_plain_task())


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_read_as_the_general_way_reads_it(address: str) -> None:
    assert same(a_task(an_annotation(a_region()), image=address)) is (address in ADDRESSES[:3])


def spots(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value stands in a nest of objects and lists."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(spot for key, value in inner for spot in spots(value, (*path, key)))]


SPOTS = [spot for spot in spots(a_plain_task()) if spot]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(SPOTS), st.sampled_from([*ODD, "gone"]), st.randoms(use_true_random=False))
def test_a_task_with_one_odd_value_is_read_as_the_general_way_reads_it(
    spot: tuple[Any, ...], odd: Any, generator: random.Random
) -> None:
    task = json.loads(json.dumps(a_plain_task(lead_time=generator.choice([None, 2.5]))))
    *way, last = spot
    parent = task
    for key in way:
        parent = parent[key]
    if odd == "gone":
        del parent[last]
    else:
        parent[last] = odd
    same(task)


@pytest.mark.parametrize(
    "facts",
    [
        *({"rotation": 10}, {"rotation": 360}, {"x": -0.001}, {"x": 75}, {"score": 0.5}, {"origin": "prediction"}),
        *({"meta": {"text": ["veil"]}}, {"hidden": True}, {"parentID": "r0"}),
    ],
)
def test_a_region_that_is_not_plain_is_left_to_the_general_way(facts: dict[str, Any]) -> None:
    assert same(a_task(an_annotation(a_region(**facts)), image=ADDRESSES[0])) is ("origin" in facts)
