"""datumaro reads what we write: the same pictures, the same counts, the same boxes.

It wants other versions of packages that we pin, so it gets an environment of its own and answers in JSON.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders_converters import TAXONOMY, a_lesion, an_answer, an_item
from builders_formats import converted, with_bytes

from converters.dataset import Split
from converters.formats.table import find
from converters.geometry import PixelBox

pytestmark = pytest.mark.e2e
ANSWER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import datumaro
boxed = datumaro.AnnotationType.bbox
for target in sys.argv[1:]:
    found = datumaro.Dataset.import_from(target, target)
    names = found.categories()[datumaro.AnnotationType.label]
    rows = []
    for item in found:
        boxes = [[names[a.label].name, *a.get_bbox()] for a in item.annotations if a.type == boxed]
        rows.append([item.id, item.subset, sorted(boxes)])
    rows.sort()
    print("answer", json.dumps([target, [label.name for label in names], rows]))
"""
BOXES = {"0": PixelBox(10, 20, 30, 60), "1": PixelBox(0, 0, 100, 80), "2": PixelBox(5.5, 6.25, 50.5, 70)}
TARGETS = ("yolo", "coco", "voc")
SMALL = PixelBox(1, 2, 3, 9)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of a fresh environment with datumaro."""
    place = tmp_path_factory.mktemp("datumaro")
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    assert uv, "make install brings uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(place / "env")], check=True)
    made = place / "env" / "bin" / "python"
    wanted = ["datumaro==1.12.0", "numpy<2"]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(made), *wanted], check=True)
    yield made
    shutil.rmtree(place, ignore_errors=True)


def test_datumaro_reads_the_same_pictures_classes_and_boxes(python: Path, tmp_path: Path) -> None:
    made = with_bytes(tuple(an_item(f"{name}.png") for name in BOXES), tmp_path / "in")
    splits = (Split.TRAIN, Split.TRAIN, Split.VAL)
    items = tuple(
        replace(item, truth=an_answer(a_lesion("mel", BOXES[str(n)]), a_lesion("nv", SMALL)), split=split)
        for n, (item, split) in enumerate(zip(made, splits, strict=True))
    )
    for target in TARGETS:
        converted(items, find(target), tmp_path / target)
    run = [python, "-c", ANSWER, *TARGETS]
    answer = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr[-2000:]
    answers = [json.loads(line[7:]) for line in answer.stdout.splitlines() if line.startswith("answer ")]
    assert [target for target, *_ in answers] == list(TARGETS)
    for target, labels, rows in answers:
        assert [label for label in labels if label in TAXONOMY.codes] == list(TAXONOMY.codes)
        assert [(name, split) for name, split, _ in rows] == [("0", "train"), ("1", "train"), ("2", "val")]
        for name, _, boxes in rows:
            assert [label for label, *_ in boxes] == ["mel", "nv"]
            assert boxes[0][1:] == pytest.approx(sides(BOXES[name], target), abs=1e-3)
            assert boxes[1][1:] == pytest.approx(sides(SMALL, target), abs=1e-3)


def sides(box: PixelBox, target: str) -> tuple[float, float, float, float]:
    """Left, top, width and height; datumaro takes VOC's left and top, which count from one, as they stand."""
    first = 1 if target == "voc" else 0
    return box.x_min + first, box.y_min + first, box.width - first, box.height - first
