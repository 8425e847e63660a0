"""Label Studio tasks as an export holds them, one thing varied at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from builders_converters import TAXONOMY

from converters.convert import convert, read_all
from converters.dataset import DatasetItem
from converters.formats.contract import ReadSettings, WriteSettings
from converters.formats.table import find
from converters.report import ConversionReport, Entry
from converters.request import Request

WIDTH, HEIGHT = 200, 100


def a_region(label: str = "Melanoma", kind: str = "rectangle", **value: Any) -> dict[str, Any]:
    """A region as the front end writes it, on an image of 200×100 pixels."""
    shape = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0} if kind == "rectangle" else {}
    facts = {key: value.pop(key) for key in ("id", "score", "origin", "parentID", "meta", "hidden") if key in value}
    return {
        "id": "r1",
        "from_name": "diagnosis",
        "to_name": "image",
        "type": f"{kind}labels",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {**shape, f"{kind}labels": [label], **value},
        **facts,
    }


def a_choice(name: str, value: str) -> dict[str, Any]:
    row = {"id": f"c-{name}", "from_name": name, "to_name": "image", "type": "choices"}
    return {**row, "value": {"choices": [value]}}


def an_annotation(*result: dict[str, Any], **facts: Any) -> dict[str, Any]:
    defaults = {"id": 1, "completed_by": 1, "was_cancelled": False, "ground_truth": False}
    moment = "2026-01-01T00:00:00.000000Z"
    return {**defaults, "created_at": moment, "updated_at": moment, "result": list(result), **facts}


def a_task(*annotations: dict[str, Any], image: str = "/data/upload/1/0a1b2c3d-a.jpg", **facts: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"image": image}, "annotations": list(annotations), "predictions": [], **facts}


def an_export(folder: Path, *tasks: dict[str, Any]) -> Path:
    """The tasks in a file, each under its own number."""
    path = folder / "export.json"
    path.write_text(json.dumps([{**task, "id": number} for number, task in enumerate(tasks, 1)], ensure_ascii=False))
    return path


def read(path: Path, **settings: Any) -> tuple[tuple[DatasetItem, ...], tuple[Entry, ...]]:
    return read_all(path, find("label-studio"), ReadSettings(TAXONOMY, **settings))


def to(target: str, path: Path, folder: Path, **facts: Any) -> ConversionReport:
    reading, writing = ReadSettings(facts.pop("taxonomy", TAXONOMY)), WriteSettings(facts.pop("classes", TAXONOMY))
    return convert(Request(path, folder, find("label-studio"), find(target), reading, writing, **facts))
