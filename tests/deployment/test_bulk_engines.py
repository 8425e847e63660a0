"""Any engine does the shards of a run: processes here, a cluster of Dask; killed workers and commands lose none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders_aws import moto, signed_in
from builders_bulk import (
    COUNT,
    champion,
    drawn,
    figures,
    home_to_measure,
    home_to_read,
    pictured,
    planned,
    results,
    run,
    tree,
    until,
)
from builders_formats import converted
from distributed import LocalCluster

from converters.errors import DatasetError
from converters.formats.table import find
from dermloop.aws.clients import Aws
from dermloop.bulk import dask_engine, engines, work
from dermloop.bulk.choice import Choice, Engine
from dermloop.bulk.plan import Plan, load_plan, progress
from dermloop.errors import BulkError
from ml_backend.settings import read_settings

ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers of Dask in processes of their own; a killed one is started anew, as `dask worker` does it."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=0, host="127.0.0.1", dashboard_address=":0", silence_logs=50
    ) as made:
        yield made


def at(cluster: LocalCluster) -> tuple[str, ...]:
    return ("--engine", "dask", "--scheduler", cluster.scheduler_address)


def kill_one_of(cluster: LocalCluster, plan: Plan) -> threading.Thread:
    """Kills a worker as soon as the first shard is done."""

    def wait() -> None:
        until(lambda: any(plan.root.glob("results/*.jsonl")))
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_dask_reads_every_shard_and_a_killed_worker_loses_none(cluster: LocalCluster, tmp_path: Path) -> None:
    home = home_to_read(tmp_path)
    made = run("bulk", "plan", "many", str(tmp_path / "pictures"), "--shards", "30", "--home", str(home))
    assert (made["items"], made["version"]) == (COUNT + 1, champion(home))
    plan, alone = load_plan(home, "many"), planned(home, "alone", 1)
    killer = kill_one_of(cluster, plan)
    far = run("bulk", "run", "many", *at(cluster), "--home", str(home))
    killer.join()
    assert (far["done"], far["read"], far["failed"]) == (30, COUNT, 1)
    assert far == run("bulk", "status", "many", "--home", str(home))
    run("bulk", "run", "alone", "--home", str(home))
    assert drawn(results(plan)) == drawn(results(alone))
    assert {row["model_version"] for row in results(plan)} == {champion(home)}


def test_dask_converts_and_measures_what_one_process_does(cluster: LocalCluster, tmp_path: Path) -> None:
    home = home_to_measure(tmp_path)
    converted(pictured(tmp_path / "in"), find("coco"), tmp_path / "source")
    many, one, source = str(tmp_path / "many"), str(tmp_path / "one"), str(tmp_path / "source")
    options = ("--config", str(home / "config.toml"), "--home", str(home))
    joined = run("bulk", "convert", source, many, "--to", "yolo", "--shards", "5", *at(cluster), "--home", str(home))
    assert joined == run("convert", source, one, "--to", "yolo")
    assert tree(tmp_path / "many") == tree(tmp_path / "one")
    measured = figures(run("bulk", "evaluate", *options, "--shards", "3", *at(cluster)))
    next(iter(home.glob("models/*/evaluation-test-*.json"))).unlink()
    plain = figures(run("bulk", "evaluate", *options, "--shards", "2"))
    assert measured.keys() == plain.keys()
    far = [name for name in plain if measured[name] != pytest.approx(plain[name], abs=1e-6, nan_ok=True)]
    assert far == [], [(measured[name], plain[name]) for name in far]


def test_an_interrupted_run_keeps_its_shards_and_another_engine_goes_on(cluster: LocalCluster, tmp_path: Path) -> None:
    home = home_to_read(tmp_path)
    plan, settings = planned(home, "run", 12), read_settings(home=home, threads=1)

    def stop(what: str, count: int, total: int) -> None:
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engines.work_off(settings, plan, Choice(Engine.DASK, scheduler=cluster.scheduler_address), stop)
    times = {path: path.stat().st_mtime_ns for path in plan.root.glob("results/*.jsonl")}
    assert len(times) >= 3
    engines.work_off(settings, plan, Choice(processes=2), lambda what, count, total: None)
    assert not plan.pending() and progress(plan).read == COUNT
    assert {path: path.stat().st_mtime_ns for path in times} == times
    engines.work_off(settings, plan, Choice(), lambda what, count, total: pytest.fail("nothing is left to do"))


def test_without_a_scheduler_dask_works_on_this_machine(tmp_path: Path) -> None:
    home = home_to_read(tmp_path)
    plan = planned(home, "run", 4)
    far = run("bulk", "run", "run", "--engine", "dask", "--processes", "2", "--home", str(home))
    assert far["done"] == 4 and not plan.pending()


def test_two_workers_never_do_one_shard_at_a_time(tmp_path: Path) -> None:
    home = home_to_read(tmp_path)
    plan = planned(home, "run", 1)
    with work.worker(read_settings(home=home, threads=1)) as one, work.worker(read_settings(home=home)) as other:
        both = [threading.Thread(target=own.do, args=(plan, 0, lambda done, total: None)) for own in (one, other)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
    assert len(results(plan)) == COUNT + 1 and len({str(row["name"]) for row in results(plan)}) == COUNT + 1


@pytest.mark.parametrize("choice", [Choice(processes=2), Choice(Engine.DASK)], ids=["local", "dask"])
def test_a_shard_that_fails_is_one_sentence_and_the_others_stay(
    choice: Choice, cluster: LocalCluster, tmp_path: Path
) -> None:
    home = home_to_read(tmp_path)
    plan = planned(home, "run", 6)
    plan.items_file(2).unlink()
    own = replace(choice, scheduler=cluster.scheduler_address) if choice.engine is Engine.DASK else choice
    with pytest.raises(BulkError, match=r"run run: shard 2: No such file .*; expected shards that can be done\. Cure"):
        engines.work_off(read_settings(home=home), plan, own, lambda what, count, total: None)
    assert 2 in plan.pending()


@contextmanager
def started(*words: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program of Dask, ended with the block."""
    with (folder / f"{words[0]}.log").open("ab") as log:
        command = [str(Path(sys.executable).with_name("dask")), *words]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "PYTHONPATH": ROOT})
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


def test_workers_started_by_hand_do_the_shards_until_their_scheduler_goes_away(tmp_path: Path) -> None:
    home, file = home_to_read(tmp_path), tmp_path / "scheduler.json"
    plan, settings = planned(home, "run", 40), read_settings(home=home)
    where = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    worker = ("worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--no-nanny")
    with started("scheduler", *where, folder=tmp_path) as scheduler:
        until(file.is_file, tmp_path / "scheduler.log")
        with started(*worker, folder=tmp_path):
            choice = Choice(Engine.DASK, scheduler=json.loads(file.read_bytes())["address"])

            def stop(what: str, count: int, total: int) -> None:
                if count == 3:
                    scheduler.kill()

            with pytest.raises(BulkError, match=r"run run: Dask's scheduler went away; .*shards that are done stay"):
                engines.work_off(settings, plan, choice, stop)
    assert len(plan.pending()) <= 37
    engines.work_off(settings, plan, Choice(), lambda what, count, total: None)
    assert progress(plan).read == COUNT


@pytest.mark.parametrize(("address", "word"), [("tcp://127.0.0.1:9", "Timed out"), ("nonsense://x", "nonsense")])
def test_a_scheduler_that_nobody_answers_at_is_one_sentence(
    address: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_to_read(tmp_path)
    planned(home, "run", 2)
    monkeypatch.setattr(dask_engine, "_PATIENCE_SECONDS", 0.5)
    with pytest.raises(BulkError, match=rf"scheduler {address}: .*{word}.*Start `dask scheduler`"):
        run("bulk", "run", "run", "--engine", "dask", "--scheduler", address, "--home", str(home))


def test_source_and_target_of_a_sharded_conversion_may_lie_on_s3(tmp_path: Path) -> None:
    converted(pictured(tmp_path / "in"), find("coco"), tmp_path / "source")
    home, options = tmp_path / "home", ("--to", "yolo", "--split", "60/20/20")
    with moto() as server, signed_in(server):
        s3: Any = Aws().client("s3")
        s3.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        for name, content in tree(tmp_path / "source").items():
            s3.put_object(Bucket="data", Key=f"source/{name}", Body=content)
        parts = ("--shards", "3", "--home", str(home))
        many = run("bulk", "convert", "s3://data/source", "s3://data/many", *options, *parts)
        one = run("convert", "s3://data/source", "s3://data/one", *options)
        assert many == one
        found = {
            name: {
                row["Key"].removeprefix(f"{name}/"): row["ETag"]
                for row in s3.list_objects_v2(Bucket="data", Prefix=f"{name}/")["Contents"]
            }
            for name in ("many", "one")
        }
        assert found["many"] == found["one"] and "_COMPLETE" in found["many"]
        assert list((home / "bulk").iterdir()) == []
        with pytest.raises(DatasetError, match="a finished export"):
            run("bulk", "convert", "s3://data/source", "s3://data/many", *options, *parts)
