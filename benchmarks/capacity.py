"""What a million images and five hundred readers ask of a server, reckoned from what one image costs.

`python benchmarks/capacity.py measure` prints a JSON object a line, `{"bench", "ours", "unit", "note"}`: processor time
where it can be had, since that hardly depends on what else the machine does; `measure convert` prints those of a
conversion alone. `python benchmarks/capacity.py page FILE` prints docs/capacity.md from such lines. Needs PostgreSQL's
programs and a home with a champion (`make bench NAME=serve`).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

HOME = Path(os.environ.get("DERMLOOP_HOME", ".dermloop")) / "bench" / "serve" / "both"
PICTURES, REVIEWED, WAITING, CONVERTED = 8, 100, 500, 800

IMAGES, READERS = 1_000_000, 500
SECONDS_AN_ANSWER, HOURS_A_DAY, ANSWERS_AN_IMAGE, BYTES_AN_IMAGE = 30, 6, 2.4, 1_500_000
"""Assumed, not measured: pace and hours of a reader, answers an image needs over all tiers, size of an image."""


def measure() -> None:
    """Prints every figure that the page is reckoned from."""
    _predictions()
    _ingest()
    _conversion()
    from builders_postgresql import postgresql

    place = tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True)
    with place as folder, postgresql(Path(folder)) as server:
        _review(server.new_database(), server.new_database())


def _predictions() -> None:
    from ml_backend.composition import build
    from ml_backend.service import Picture
    from ml_backend.settings import read_settings

    files = sorted((HOME / "images").glob("[0-9]*.jpg"))[:PICTURES]
    parts = build(read_settings(home=HOME, threads=1))
    pictures = [Picture(path.name, path.read_bytes) for path in files]
    parts.service.analyse(pictures[:2])
    cpu, _ = _spent(lambda: parts.service.analyse(pictures))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    parts.close()
    _line("capacity.predict", cpu / len(files), "processor s/image", "1024×768, YOLO11n and VGG16, one thread")
    _line("capacity.predict_memory", memory, "MB", "one serving process with both models")


def _ingest() -> None:
    from converters.images import clean

    files = sorted((HOME / "images").glob("[0-9]*.jpg"))[:PICTURES]
    contents = [(path.read_bytes(), path.name) for path in files]
    cpu, _ = _spent(lambda: [clean(content, name) for content, name in contents])
    _line("capacity.ingest", cpu / len(files), "processor s/image", "1024×768 JPEG without a turn")


def _conversion() -> None:
    from converters import taxonomy
    from converters.formats.contract import ReadSettings, WriteSettings
    from converters.formats.table import find
    from converters.request import Request
    from converters.splits import SplitPolicy
    from dermloop.bulk import conversion

    known = taxonomy.read()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _drawn(root / "source", known.codes)
        read, write = ReadSettings(known), WriteSettings(known)
        request = Request(root / "source", root / "out", find("yolo"), find("coco"), read, write, SplitPolicy())
        planned, _ = _spent(lambda: conversion.plan(root / "home", request, 8))
        plan = conversion.plan(root / "home", request, 8)
        cpu, _ = _spent(lambda: [conversion.run_shard(plan, shard, lambda *_: None) for shard in range(8)])
        joined, _ = _spent(lambda: conversion.join(plan, request, lambda *_: None))
    _line(
        "capacity.convert_shards", cpu / CONVERTED, "processor s/image", "smooth 1024×768 JPEG from YOLO, in 8 shards"
    )
    note = "planned with a split by near-duplicates, then joined into COCO and read back: one process"
    _line("capacity.convert_once", (planned + joined) / CONVERTED, "processor s/image", note)


def _drawn(root: Path, codes: tuple[str, ...]) -> None:
    """A YOLO dataset of different coloured noise."""
    from builders_converters import picture

    for name in ("images/train", "labels/train"):
        (root / name).mkdir(parents=True)
    for number in range(CONVERTED):
        (root / f"images/train/{number}.jpg").write_bytes(picture(1024, 768, number, quality=92))
        (root / f"labels/train/{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text(f"train: images/train\nnames: [{', '.join(codes)}]\n")


def _review(database: str, queue: str) -> None:
    from builders_review import ANNA, BEN, TECHNICIAN, MemoryLabelStudio, a_result, a_service, an_image, prepare

    from converters.label_studio.controls import Tier
    from review_workflow.store import open_store

    store, studio = open_store(database), MemoryLabelStudio()
    prepare(store)
    service = a_service(store, studio)
    before = _size(database)
    cpu, wall = _spent(lambda: service.register([an_image(number) for number in range(REVIEWED)]))
    _line("capacity.register", cpu / REVIEWED, "processor s/image", f"{wall / REVIEWED:.4f} s by the clock, PostgreSQL")
    cpu, wall = _spent(service.settle)
    _line("capacity.deliver", cpu / REVIEWED, "processor s/task", "into a Label Studio in memory: without its own time")
    for person, tier, verdict in ((TECHNICIAN, Tier.TECHNICIAN, None), (ANNA, Tier.DERMATOLOGIST, "Accept")):
        for task in studio.open_tasks(tier):
            reader = BEN if task.data["assignee"] == BEN.email else person
            studio.annotate(task.task_id, reader.user_id or 0, a_result(verdict=verdict))
        cpu, wall = _spent(service.settle)
        name = f"capacity.answer_{tier.name.lower()}"
        _line(name, cpu / REVIEWED, "processor s/answer", "of our process alone; one process decides at a time")
        _line(f"{name}_clock", wall / REVIEWED, "s/answer", "by the clock, the database and all else included")
    _line("capacity.database", (_size(database) - before) / REVIEWED / 1024, "kB/image", "PostgreSQL, after approval")
    service.close()
    _order(queue)


def _order(database: str) -> None:
    from builders_review import MemoryLabelStudio, a_result, a_service, an_image, prepare

    from converters.label_studio.controls import Tier
    from review_workflow.store import open_store

    store, studio = open_store(database), MemoryLabelStudio()
    prepare(store)
    service = a_service(store, studio)
    service.register([an_image(number) for number in range(WAITING)])
    service.settle()
    cpu, _ = _spent(service.sync)
    _line("capacity.idle_pass", cpu, "processor s", f"a pass with nothing new and {WAITING} waiting tasks")
    studio.predict(studio.open_tasks(Tier.TECHNICIAN)[0].task_id, "model-2", a_result())
    _spent(lambda: _ordered(service))
    studio.predict(studio.open_tasks(Tier.TECHNICIAN)[1].task_id, "model-2", a_result())
    cpu, wall = _spent(lambda: _ordered(service))
    note = f"{wall:.3f} s by the clock; one new prediction of a known model among {WAITING} waiting tasks"
    _line("capacity.order_one", cpu, "processor s", note)
    for task in studio.open_tasks(Tier.TECHNICIAN):
        studio.predict(task.task_id, "model-3", a_result(finding="lesion-free", lesions=()))
    cpu, wall = _spent(lambda: _ordered(service))
    note = (
        f"{wall / WAITING:.5f} s by the clock; a new model, whose predictions for all {WAITING} waiting tasks are new"
    )
    _line("capacity.order", cpu / WAITING, "processor s/waiting task", note)
    service.close()


def _ordered(service: Any) -> None:
    while service.order().more:
        pass


def _size(database: str) -> int:
    import psycopg

    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(row[0]) if row else 0


def _spent(work: Callable[[], object]) -> tuple[float, float]:
    began, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - began, time.perf_counter() - clock


def _line(bench: str, ours: float, unit: str, note: str) -> None:
    print(json.dumps({"bench": bench, "ours": float(f"{ours:.3g}"), "unit": unit, "note": note}), flush=True)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the system: what it does in the reckoning, what one unit of it can do, and what to turn."""

    name: str
    load: str
    one: str
    needed: str
    turn: str


def page(lines: str) -> str:
    """docs/capacity.md from the lines that `measure` printed."""
    rows = [json.loads(line) for line in lines.splitlines() if line.strip()]
    figures = {row["bench"].removeprefix("capacity."): float(row["ours"]) for row in rows}
    table = "\n".join(f"| {' | '.join((p.name, p.load, p.one, p.needed, p.turn))} |" for p in _parts(figures))
    measured = "\n".join(f"| `{row['bench']}` | {row['ours']:g} {row['unit']} | {row['note']} |" for row in rows)
    return _PAGE.format(
        days=f"{_days():.0f}",
        rate=f"{_rate():.1f}",
        images=f"{IMAGES:,}",
        readers=READERS,
        seconds=SECONDS_AN_ANSWER,
        hours=HOURS_A_DAY,
        answers=ANSWERS_AN_IMAGE,
        megabytes=BYTES_AN_IMAGE / 1e6,
        table=table,
        measured=measured,
        first=_first(figures),
        order=f"{figures['order'] * IMAGES / 60:.0f}",
        order_one=f"{figures['order_one']:.3f}",
    )


def _rate() -> float:
    return READERS / SECONDS_AN_ANSWER


def _days() -> float:
    return IMAGES * ANSWERS_AN_IMAGE / (_rate() * HOURS_A_DAY * 3600)


def _parts(f: dict[str, float]) -> Iterator[Part]:
    answer = max(f["answer_technician"], f["answer_dermatologist"]) + f["deliver"]
    hours = IMAGES * f["predict"] / 3600
    yield Part(
        "Pre-annotation",
        f"{IMAGES:,} pictures once for each new model",
        f"{3600 / f['predict']:,.0f} pictures an hour on one processor",
        f"{hours:,.0f} processor hours: {hours / 32:.0f} h on 32 processors",
        "`dermloop bulk`: more workers, or a batch transform; it ends when the last shard does",
    )
    yield Part(
        "Serving while people label",
        f"{_rate():.1f} opened tasks a second where none was predicted before",
        f"{1 / f['predict']:.1f} pictures a second on one processor",
        f"{_rate() * f['predict']:.0f} processors; none where the pictures were pre-annotated",
        "serving replicas, `DERMLOOP_ML_THREADS`",
    )
    yield Part(
        "Deciding on answers",
        f"{_rate():.1f} answers a second",
        f"{1 / answer:.0f} a second: one process at a time decides, whatever the number of replicas",
        f"{100 * _rate() * answer:.0f} % of one processor, Label Studio's own time not counted",
        "a faster processor; every replica stores webhooks meanwhile, so nothing is lost",
    )
    yield Part(
        "Taking images in",
        f"{IMAGES:,} pictures",
        f"{3600 / (f['ingest'] + f['register']):,.0f} an hour on one processor",
        f"{IMAGES * (f['ingest'] + f['register']) / 3600:.0f} processor hours",
        "several `dermloop ingest` on parts of the folder",
    )
    yield Part(
        "Converting",
        f"{IMAGES:,} pictures of 1024×768, split by patient and near-duplicate",
        f"{3600 / f['convert_shards']:,.0f} an hour on one processor, after one process has planned",
        f"{IMAGES * f['convert_shards'] / 3600:.1f} processor hours in shards, "
        f"{IMAGES * f['convert_once'] / 3600:.1f} h of one process before and after",
        "`dermloop bulk convert`: more workers, until planning and joining are most of it",
    )
    yield Part(
        "Review database",
        f"{IMAGES:,} images with their audit log",
        f"{f['database']:.0f} kB an image",
        f"{IMAGES * f['database'] / 1e6:.0f} GB",
        "PostgreSQL's disk; `shared_buffers` at a quarter of its memory",
    )
    yield Part(
        "Pictures",
        f"{IMAGES:,} of {BYTES_AN_IMAGE / 1e6:g} MB",
        "",
        f"{IMAGES * BYTES_AN_IMAGE / 1e12:.1f} TB, and as much for a backup",
        "a network file system or S3",
    )


def _first(f: dict[str, float]) -> str:
    answer = max(f["answer_technician"], f["answer_dermatologist"]) + f["deliver"]
    clock = max(f["answer_technician_clock"], f["answer_dermatologist_clock"]) + f["deliver"]
    least, most = (SECONDS_AN_ANSWER / seconds for seconds in (clock, answer))
    return f"{least:,.0f} readers at this pace by the clock of the busy machine, {most:,.0f} by our own processor time"


_PAGE = """# Capacity

What {images} images and {readers} readers ask of a server: a reckoning on paper from figures that were measured on one
machine, for planning; it is no measurement of such a server. `python benchmarks/capacity.py measure` measures
again, `python benchmarks/capacity.py page docs/capacity.jsonl` writes this page.

Supports annotation and research; no diagnosis.

Assumed: a reader gives an answer every {seconds} s for {hours} h a day, an image takes {answers} answers, a
picture has {megabytes} MB. That makes {rate} answers a second, and {days} working days for all of it.

| part | load | one of it does | needed | what to turn |
|---|---|---|---|---|
{table}

## Where it saturates

1. **Deciding on answers** is the first part that more machines do not help: one process at a time takes answers in, by
   a lease, so that the audit log is one chain. It carries
   {first}; where between
   the two a server lies depends on its database and on Label Studio, and has to be measured there. Beyond that, a
   server for each clinic, whose datasets are joined when they are frozen.
2. **Ordering the queues** after a new prediction rewrites its own task ({order_one} processor s). After a new
   model it looks at every waiting task, in chunks between which answers are taken in: {order} processor minutes for
   {images} waiting tasks whose predictions are all new.
3. **Label Studio** writes tasks and answers pages by itself; its share is not in these figures. It scales by its own
   processes (`UWSGI_PROCESSES`) and PostgreSQL.
4. **Pre-annotation** scales with processors until the file system that the pictures are read from is busy.

## Measured

| figure | value | how |
|---|---|---|
{measured}

Measured on a shared machine with two processors that was busy with other work; processor times are comparable, times by
the clock are upper bounds.
"""


def main() -> None:
    """Entry point: `measure`, or `page FILE`."""
    match sys.argv[1:]:
        case ["measure"]:
            measure()
        case ["measure", "convert"]:
            _conversion()
        case ["page", file]:
            print(page(Path(file).read_text(encoding="utf-8")), end="")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
