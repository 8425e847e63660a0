"""Conversion of 10,000 tasks beside label_studio_sdk's converter on the same file, and 200,000 tasks in little memory.

Prints a JSON object a line: `{"bench", "ours", "peer", "limit", "unit", "note"}`. Both sides run in turn, five times
each; the medians are shown. The read-back check, which the peer does not have, is off in the comparison and has a line
of its own. `--lines yolo memory` runs these lines only.

What either side writes (2 GB in all) is deleted at the end, never between two runs: ext4 steps over inodes that were
freed in the last minutes one by one, so that creating 10,000 files took 0.09 s, but 0.4 to 1.5 s after a deletion,
whichever program creates them.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from converters import taxonomy
from converters.convert import convert
from converters.formats.contract import ReadSettings, WriteSettings
from converters.formats.table import find
from converters.request import Request

TASKS, MANY, ROUNDS = 10_000, 200_000, 5
TARGETS = {"yolo": 2, "coco": 4, "voc": 3}
CLASSES = taxonomy.read()
MEMORY_LIMIT = 400
LINES = (*TARGETS, "readback", "memory")


def main(tasks: int = TASKS, many: int = MANY, rounds: int = ROUNDS, lines: Sequence[str] = LINES) -> None:
    """Runs the named lines of the bench."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export = written_tasks(folder / "export.json", tasks)
        for target, wanted in TARGETS.items():
            if target in lines:
                compare(target, wanted, export, tasks, rounds)
        if "readback" in lines:
            read_back(export, tasks, rounds)
        if "memory" in lines:
            memory(written_tasks(folder / "many.json", many), folder, many)


def compare(target: str, wanted: int, export: Path, tasks: int, rounds: int) -> None:
    """One line: our median seconds beside the peer's, taken in turn."""
    ours, peers = [], []
    for _ in range(rounds):
        ours.append(timed(lambda place: convert_ours(export, place, target, False), export.parent))
        peers.append(timed(lambda place: convert_theirs(export, place, target), export.parent))
    mine, peer = statistics.median(ours), statistics.median(peers)
    note = f"{tasks} tasks of 3 boxes, {peer / mine:.1f}x label_studio_sdk (wanted {wanted}x), read-back off"
    line(f"convert.{target}", mine, peer, None, "s", note)


def read_back(export: Path, tasks: int, rounds: int) -> None:
    """One line: what reading back and comparing every label adds to a conversion to YOLO."""
    costs = []
    for _ in range(rounds):
        without = timed(lambda place: convert_ours(export, place, "yolo", False), export.parent)
        costs.append(timed(lambda place: convert_ours(export, place, "yolo", True), export.parent) - without)
    note = f"{tasks} tasks to YOLO: reading back and comparing every label, added to convert.yolo"
    line("convert.readback", statistics.median(costs), None, None, "s", note)


def memory(export: Path, folder: Path, tasks: int) -> None:
    """One line: the highest resident memory of a process that converts a large export, read-back on."""
    code = "import sys; from benchmarks.convert import peak; peak(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(export), str(folder / "many")], capture_output=True, text=True, check=True
    )
    size = export.stat().st_size / 1e6
    note = f"{tasks} tasks ({size:.0f} MB) to YOLO, read-back on"
    line("convert.memory_200k", float(done.stdout), None, MEMORY_LIMIT, "MB", note)


def peak(export: str, target: str) -> None:
    """Converts, then prints the process's highest resident memory in MB.

    Read from /proc, because `ru_maxrss` begins with what the parent process had.
    """
    convert_ours(Path(export), Path(target), "yolo", True)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024)


def convert_ours(export: Path, target: Path, name: str, read_back: bool) -> None:
    """One conversion of ours."""
    reading, writing = ReadSettings(CLASSES), WriteSettings(CLASSES)
    convert(Request(export, target, find("label-studio"), find(name), reading, writing, read_back=read_back))


def convert_theirs(export: Path, target: Path, name: str) -> None:
    """The same conversion by label_studio_sdk."""
    from label_studio_sdk.converter import Converter

    labels = "".join(f'<Label value="{diagnosis.name}"/>' for diagnosis in CLASSES.diagnoses)
    rectangles = f'<RectangleLabels name="diagnosis" toName="image">{labels}</RectangleLabels>'
    config = f'<View><Image name="image" value="$image"/>{rectangles}</View>'
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converter = Converter(config, str(export.parent), download_resources=False)
        getattr(converter, f"convert_to_{name}")(str(export), str(target), is_dir=False)


def timed(work: Callable[[Path], None], folder: Path) -> float:
    """Seconds that the work takes to fill a new folder below `folder`."""
    place = Path(tempfile.mkdtemp(dir=folder))
    start = time.perf_counter()
    work(place)
    return time.perf_counter() - start


def written_tasks(path: Path, count: int) -> Path:
    """An export of so many tasks with three boxes each, the same for the same number."""
    generator = random.Random(count)
    with path.open("wb") as stream:
        for number in range(count):
            stream.write((b",\n" if number else b"[") + orjson.dumps(a_task(number, generator)))
        stream.write(b"]")
    return path


def a_task(number: int, generator: random.Random) -> dict[str, Any]:
    """One annotated task as Label Studio exports it."""
    moment = "2026-01-01T00:00:00.000000Z"
    facts = {"was_cancelled": False, "ground_truth": False, "created_at": moment, "updated_at": moment}
    result = [a_region(f"r{number}-{index}", generator) for index in range(3)]
    annotation = {"id": number, "completed_by": 1, "result": result, **facts, "lead_time": 3.2, "task": number}
    data = {"image": f"s3://derm/images/{number:06d}.jpg"}
    return {"id": number, "data": data, "annotations": [annotation], "drafts": [], "predictions": [], "meta": {}}


def a_region(region_id: str, generator: random.Random) -> dict[str, Any]:
    """One labelled box inside a picture of 1024×768."""
    x, y = generator.uniform(0, 60), generator.uniform(0, 60)
    width, height = generator.uniform(5, 40), generator.uniform(5, 40)
    label = generator.choice(CLASSES.diagnoses).name
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]}
    frame = {"original_width": 1024, "original_height": 768, "image_rotation": 0, "origin": "manual"}
    names = {"from_name": "diagnosis", "to_name": "image", "type": "rectanglelabels"}
    return {"id": region_id, **names, **frame, "value": value}


def line(bench: str, ours: float, peer: float | None, limit: float | None, unit: str, note: str) -> None:
    """Prints one result."""
    shown = {"ours": round(ours, 3), "peer": None if peer is None else round(peer, 3), "limit": limit, "unit": unit}
    print(json.dumps({"bench": bench, **shown, "note": note}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=LINES)
    main(**vars(parser.parse_args()))
