"""Conversion and measurement in shards: what comes out is what one run gives, however often shards are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from builders_bulk import figures, home_to_measure, pictured, run, tree, until
from builders_converters import TAXONOMY, a_lesion, an_answer, an_item, picture
from builders_formats import converted, memory_format
from builders_redis import redis_server

from converters.convert import LossError, convert
from converters.dataset import DatasetItem
from converters.formats.contract import Format, ReadSettings, WriteSettings
from converters.formats.table import FORMATS, find
from converters.report import ConversionReport
from converters.request import Request
from converters.splits import SplitPolicy
from dermloop.bulk import conversion, engines, work
from dermloop.bulk.choice import Choice
from dermloop.bulk.plan import Plan
from dermloop.errors import BulkError
from ml_backend.settings import read_settings

ROOT = Path(__file__).parents[2]
JOINABLE = [name for name, known in FORMATS.items() if known.write is not None and name != "crops"]


def asked(folder: Path, items: tuple[DatasetItem, ...], writer: Format, name: str = "out") -> Request:
    read, write = ReadSettings(TAXONOMY), WriteSettings(TAXONOMY)
    request = Request(folder / "in", folder / name, memory_format(items), writer, read, write, SplitPolicy())
    return replace(request, allow_loss=True)


def unsharded(folder: Path, items: tuple[DatasetItem, ...], writer: Format) -> ConversionReport:
    return convert(replace(asked(folder, items, writer, "whole"), allow_loss=True))


def quiet(*_: object) -> None:
    return None


def done(plan: Plan) -> Plan:
    for shard in plan.pending():
        conversion.run_shard(plan, shard, quiet)
    return plan


@pytest.mark.parametrize("writer", JOINABLE)
def test_what_is_joined_is_what_one_conversion_writes(writer: str, tmp_path: Path) -> None:
    items = pictured(tmp_path / "in")
    request = asked(tmp_path, items, find(writer))
    plan = done(conversion.plan(tmp_path / "home", request, 5))
    report = conversion.join(plan, replace(request, allow_loss=True, read_back=True), quiet)
    whole = unsharded(tmp_path, items, find(writer))
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert report.to_dict() == whole.to_dict()
    assert list((tmp_path / "home" / "bulk").iterdir()) == []


def test_a_killed_shard_is_done_again_and_a_finished_one_is_not(tmp_path: Path) -> None:
    items = pictured(tmp_path / "in")
    request = asked(tmp_path, items, find("yolo"))
    plan = conversion.plan(tmp_path / "home", request, 3)
    conversion.run_shard(plan, 0, quiet)

    def stop(count: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversion.run_shard(plan, 1, stop)
    with pytest.raises(BulkError, match="2 shards to do"):
        conversion.join(plan, replace(request, allow_loss=True, read_back=True), quiet)
    finished = next((plan.root / "parts" / "00000").rglob("*.png"))
    finished.write_bytes(other := picture(100, 80, seed=99, format="PNG"))
    assert conversion.plan(tmp_path / "home", request, 3) == plan
    conversion.join(done(plan), replace(request, allow_loss=True, read_back=False), quiet)
    unsharded(tmp_path, items, find("yolo"))
    found, whole = tree(tmp_path / "out"), tree(tmp_path / "whole")
    assert found.keys() == whole.keys()
    assert [found[name] for name in found if found[name] != whole[name]] == [other]


def test_a_loss_fails_the_join_as_it_fails_one_conversion(tmp_path: Path) -> None:
    items = (*pictured(tmp_path / "in"), replace(an_item("bad.jpg"), truth=an_answer(a_lesion(None))))
    request = asked(tmp_path, items, find("yolo"))
    plan = done(conversion.plan(tmp_path / "home", request, 4))
    with pytest.raises(LossError, match=r"bad\.jpg"):
        conversion.join(plan, replace(request, allow_loss=False, read_back=True), quiet)
    assert not (tmp_path / "out").exists()
    assert conversion.join(plan, replace(request, allow_loss=True, read_back=True), quiet).images == 12


@pytest.fixture
def source(tmp_path: Path) -> Path:
    converted(pictured(tmp_path / "in"), find("coco"), tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.parametrize("writer", ["yolo", "coco"])
def test_the_command_gives_the_files_and_the_report_of_convert(writer: str, source: Path, tmp_path: Path) -> None:
    options = ("--from", "coco", "--to", writer, "--split", "60/20/20")
    parts = ("--shards", "3", "--processes", "2", "--home", str(tmp_path / "home"))
    many = run("bulk", "convert", str(source), str(tmp_path / "many"), *options, *parts)
    one = run("convert", str(source), str(tmp_path / "one"), *options)
    assert tree(tmp_path / "many") == tree(tmp_path / "one")
    assert many == one


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    return home_to_measure(tmp_path)


def test_the_figures_are_those_of_evaluate(measured: Path) -> None:
    options = ("--config", str(measured / "config.toml"), "--home", str(measured))
    many = figures(run("bulk", "evaluate", *options, "--shards", "3"))
    [report] = measured.glob("models/*/evaluation-test-*.json")
    kept = json.loads(report.read_bytes())
    report.unlink()
    one = figures(run("evaluate", *options))
    assert many.keys() == one.keys() and all(
        many[name] == pytest.approx(one[name], abs=1e-9, nan_ok=True) for name in one
    )
    again = json.loads(report.read_bytes())
    assert kept["cases"] == again["cases"] and kept["slices"] == again["slices"] and kept["skipped"] == 1
    assert list((measured / "bulk").iterdir()) == []


def test_workers_share_conversion_and_measurement_and_a_killed_one_loses_none(
    measured: Path, source: Path, tmp_path: Path
) -> None:
    options = ("--config", str(measured / "config.toml"), "--home", str(measured))
    asking = ("bulk", "convert", str(source), str(tmp_path / "many"), "--to", "yolo", "--home", str(measured))
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMLOOP_ML_JOBS_URL", server.url)
        patch.setenv("DERMLOOP_ML_JOBS_LEASE", "1.0")
        first, second = (
            run(*asking, "--engine", "queue"),
            run("bulk", "evaluate", *options, "--engine", "queue", "--shards", "3"),
        )
        plans = [work.load_plan(measured, str(row["name"])) for row in (first, second)]
        with Workers(measured, tmp_path / "log") as workers:
            until(lambda: any(plans[0].root.glob("results/*.jsonl")), tmp_path / "log")
            workers[0].kill()
            until(lambda: not any(plan.pending() for plan in plans), tmp_path / "log")
        joined = run(*asking, "--engine", "queue")
        many = figures(run("bulk", "evaluate", *options, "--engine", "queue", "--shards", "3"))
    assert joined == run("convert", str(source), str(tmp_path / "one"), "--to", "yolo")
    assert tree(tmp_path / "many") == tree(tmp_path / "one")
    assert many["map50"][0] == pytest.approx(1.0)


class Workers:
    """Two `dermloop bulk work`, ended with the block."""

    def __init__(self, home: Path, log: Path) -> None:
        self._log = log.open("wb")
        command = [sys.executable, "-m", "dermloop", "bulk", "work", "--home", str(home)]
        self._running = [
            subprocess.Popen(command, env={**os.environ}, cwd=ROOT, stdout=self._log, stderr=self._log)
            for _ in range(2)
        ]

    def __enter__(self) -> list[subprocess.Popen[bytes]]:
        return self._running

    def __exit__(self, *_: object) -> None:
        for worker in self._running:
            worker.send_signal(signal.SIGTERM)
        for worker in self._running:
            worker.wait(20)
        self._log.close()


def test_what_cannot_be_joined_is_one_sentence(source: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    wrong = {
        "crops": (tmp_path / "out", "expected a format that keeps pictures whole"),
        "yolo": (tmp_path / "full", "something is there"),
        "frozen": (tmp_path / "out", "expected a format that can be written"),
    }
    for writer, (target, sentence) in wrong.items():
        with pytest.raises(BulkError, match=sentence):
            run("bulk", "convert", str(source), str(target), "--to", writer, "--home", str(tmp_path / "home"))
    assert not (tmp_path / "home" / "bulk").exists()


def test_pictures_that_are_gone_fail_their_shard_and_nothing_is_joined(source: Path, tmp_path: Path) -> None:
    items = pictured(tmp_path / "own")
    request = asked(tmp_path, items, find("yolo"))
    plan = conversion.plan(tmp_path / "home", request, 2)
    Path(items[0].record.uri).write_bytes(b"no picture")
    with pytest.raises(BulkError, match="expected shards that can be done"):
        engines.work_off(read_settings(home=tmp_path / "home"), plan, Choice(processes=2), quiet)
    assert plan.pending() and not (tmp_path / "out").exists()
