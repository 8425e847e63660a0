"""The capacity page is what the script makes of the figures that were measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "capacity.jsonl"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("capacity", ROOT / "benchmarks" / "capacity.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["capacity"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_of_the_stored_figures(script: ModuleType) -> None:
    page = script.page(FIGURES.read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "capacity.md").read_text(encoding="utf-8") == page


def test_dearer_answers_leave_room_for_fewer_readers(script: ModuleType) -> None:
    rows = [json.loads(line) for line in FIGURES.read_text(encoding="utf-8").splitlines()]
    figures = {row["bench"].removeprefix("capacity."): float(row["ours"]) for row in rows}
    dearer = {**figures, "answer_technician_clock": 1.0}
    assert script._first(dearer).startswith("30 readers")
    assert script._first(figures) != script._first(dearer)
