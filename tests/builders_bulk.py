"""Runs over very many pictures: a home to read, measure and convert in, and what a run left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from builders_converters import a_lesion, an_answer, an_item
from builders_formats import POINTS, with_bytes
from builders_serving import bundle, encoded, pixels
from builders_training import served_version
from typer.testing import CliRunner

from converters.dataset import DatasetItem
from converters.geometry import KeyPoint, PixelBox
from dermloop.bulk import sources
from dermloop.bulk.plan import Plan, make_plan
from dermloop.cli import app
from ml_backend.s3 import ObjectStore

COUNT = 60
QUICK = "[evaluation]\nresamples = 20\nminimum_slice = 2\n"


def home_to_read(folder: Path) -> Path:
    """A home with a champion, beside a folder of pictures, of which one is broken."""
    bundle(folder / "home")
    pictures = folder / "pictures" / "deep"
    pictures.mkdir(parents=True)
    for number in range(COUNT):
        (pictures / f"{number:03}.png").write_bytes(encoded(pixels(160, 120, ((20 + number, 30, 60 + number, 70),))))
    (pictures / "broken.png").write_bytes(b"no picture")
    return folder / "home"


def home_to_measure(folder: Path) -> Path:
    """A home with a champion and a frozen dataset."""
    home = folder / "home"
    served_version(home, ungradable=True)
    bundle(home)
    (home / "config.toml").write_text(QUICK)
    return home


def pictured(folder: Path, count: int = 12) -> tuple[DatasetItem, ...]:
    """Pictures of two for each patient, some of one name, one with something to black out."""
    items = with_bytes(tuple(an_item(f"{n // 3}.png", patient_id=f"p{n // 2}") for n in range(count)), folder)
    black = replace(items[1], truth=replace(items[1].truth, redactions=(PixelBox(0, 0, 30, 20),)))
    points = (KeyPoint(15, 25, POINTS[0]),)
    pointed = replace(items[2], truth=an_answer(a_lesion(keypoints=points), image_id=items[2].record.image_id))
    return (items[0], black, pointed, *items[3:])


def champion(home: Path) -> str:
    """The version that is served."""
    return str(json.loads((home / "models" / "champion.json").read_bytes())["version"])


def planned(home: Path, name: str, shards: int) -> Plan:
    """A run over the pictures beside a home."""
    found = sources.items(str(home.parent / "pictures"), ObjectStore())
    return make_plan(home, name, champion(home), found, shards)


def results(plan: Plan) -> list[dict[str, object]]:
    """The lines of a run, by the name of their picture."""
    lines = [line for shard in range(plan.shards) for line in plan.results_file(shard).read_bytes().splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda row: str(row["name"]))


def drawn(rows: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """Names and lesions; shares may differ in their last digits with the number of threads."""
    found = [(row["name"], row.get("lesions", [])) for row in rows]
    return [(name, [(one["box"], one["diagnosis"]) for one in lesions]) for name, lesions in found]  # type: ignore[attr-defined]


def tree(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def figures(row: dict[str, Any]) -> dict[str, tuple[float, ...]]:
    """The figures of a measurement, by name."""
    return {
        name: tuple(found[key] for key in ("value", "low", "high", "cases")) for name, found in row["metrics"].items()
    }


def run(*words: str, status: int = 0) -> dict[str, Any]:
    """What a command prints as JSON."""
    result = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return dict(json.loads(result.stdout))


def until(holds: Callable[[], bool], log: Path | None = None, seconds: float = 60) -> None:
    """Waits for something; fails with what a log says where it does not come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, log.read_text() if log else "it did not come"
        time.sleep(0.02)
