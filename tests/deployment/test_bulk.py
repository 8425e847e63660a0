"""Very many pictures in shards: the same readings however often a run is cut into pieces or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from builders_bulk import COUNT, champion, drawn, home_to_read, planned, results, until
from builders_redis import redis_server
from builders_review import TAXONOMY
from builders_serving import bundle
from typer.testing import CliRunner

from converters.label_studio.config import labelling_config
from converters.label_studio.controls import Tier
from dermloop.bulk import sources, work
from dermloop.bulk.cli import app
from dermloop.bulk.plan import Item, Plan, make_plan, progress, shard_of
from dermloop.bulk.pushing import push
from dermloop.errors import BulkError
from ml_backend.bundle import set_champion
from ml_backend.label_studio import NewPrediction, StoredTask
from ml_backend.settings import Settings, read_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return home_to_read(tmp_path)


def settings(home: Path, **given: object) -> Settings:
    return read_settings(home=home, threads=1, **given)


def read_all(home: Path, plan: Plan) -> list[dict[str, object]]:
    with work.worker(settings(home)) as own:
        for shard in plan.pending():
            own.do(plan, shard, lambda done, total: None)
    return results(plan)


def test_the_readings_are_the_same_in_one_shard_and_in_many(home: Path) -> None:
    one, many = planned(home, "one", 1), planned(home, "many", 7)
    rows = read_all(home, one)
    assert rows == read_all(home, many)
    assert [row["name"] for row in rows if "error" in row] == ["deep/broken.png"]
    assert (progress(many).done, progress(many).read, progress(many).failed) == (7, COUNT, 1)
    assert all(shard_of(item.name, 7) == shard for shard in range(7) for item in many.read_items(shard))


def test_a_run_keeps_the_model_that_it_was_planned_for(home: Path) -> None:
    plan = planned(home, "run", 3)
    other = bundle(home, name="other", score=0.8)
    set_champion(home / "models", other.version)
    assert {row["model_version"] for row in read_all(home, plan)} == {plan.version} != {other.version}


def test_a_shard_goes_on_where_it_was_interrupted(home: Path) -> None:
    plan = planned(home, "run", 1)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with work.worker(settings(home)) as own, pytest.raises(KeyboardInterrupt):
        own.do(plan, 0, stop)
    part = plan.results_file(0).with_suffix(".part")
    first = part.read_bytes()
    assert first.count(b"\n") == 32 and not plan.is_done(0)
    part.write_bytes(first + b'{"name": "half a li')
    rows = read_all(home, plan)
    assert len(rows) == COUNT + 1 and plan.results_file(0).read_bytes().startswith(first)


def test_two_workers_share_the_shards_and_a_killed_one_loses_none(home: Path, tmp_path: Path) -> None:
    plan = planned(home, "run", 20)
    folder = tmp_path / "redis"
    folder.mkdir()
    with redis_server(folder) as server:
        given = {"DERMLOOP_ML_JOBS_URL": server.url, "DERMLOOP_ML_JOBS_LEASE": "1.0", "DERMLOOP_HOME": str(home)}
        command = [sys.executable, "-m", "dermloop", "bulk", "work"]
        with (tmp_path / "log").open("wb") as log:
            environment = {**os.environ, **given}
            workers = [subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log) for _ in range(2)]
        queue = work.open_queue(settings(home, jobs_url=server.url))
        try:
            assert work.submit(plan, queue, "test") == 20
            work.submit(plan, queue, "test")
            until(lambda: bool(list(plan.root.glob("results/*"))), (tmp_path / "log"))
            workers[0].kill()
            until(lambda: not plan.pending(), tmp_path / "log")
            assert len({job.subject for job in queue.jobs()}) == len(queue.jobs()) == 20
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            for worker in workers:
                worker.wait(20)
            queue.close()
    assert drawn(results(plan)) == drawn(read_all(home, planned(home, "alone", 1)))


class Project:
    """A project of Label Studio in memory: tasks on pictures, and the predictions stored on them."""

    def __init__(self, folder: Path) -> None:
        names = sorted(path.name for path in folder.glob("*.png"))[:10]
        self._places = {number: f"/data/local-files/?d=pictures/deep/{name}" for number, name in enumerate(names, 1)}
        self.stored: dict[int, list[NewPrediction]] = {number: [] for number in self._places}
        self.shown = ""

    def label_config(self, project_id: int) -> str:
        return labelling_config(TAXONOMY, Tier.TECHNICIAN)

    def tasks(self, project_id: int) -> Iterator[StoredTask]:
        for number, address in self._places.items():
            versions = frozenset(found.model_version for found in self.stored[number])
            yield StoredTask(number, (("image", address),), versions, answered=number == 3)

    def push(self, project_id: int, predictions: Sequence[NewPrediction]) -> int:
        for made in predictions:
            self.stored[made.task_id].append(made)
        return len(predictions)

    def show_version(self, project_id: int, version: str) -> None:
        self.shown = version


def test_the_waiting_tasks_of_a_project_get_their_predictions_once(home: Path) -> None:
    project = Project(home.parent / "pictures" / "deep")
    loaded = bundle(home)
    own, items = sources.tasks(project, 7, loaded)
    plan = make_plan(home, "project", loaded.version, items, 3, own)
    with pytest.raises(BulkError, match="3 shards to read; expected none"):
        push(plan, project, lambda done, total: None)
    with work.worker(settings(home, image_root=home.parent)) as own:
        for shard in plan.pending():
            own.do(plan, shard, lambda done, total: None)
    assert push(plan, project, lambda done, total: None) == 9
    assert push(plan, project, lambda done, total: None) == 0
    assert {number: len(found) for number, found in project.stored.items()} == {n: int(n != 3) for n in range(1, 11)}
    assert project.shown == loaded.version
    assert all(found[0].result for number, found in project.stored.items() if number != 3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "nowhere"), "run nowhere: FileNotFoundError; expected one of: known. Plan it first."),
        (("plan", "known", "."), "run known: there already; expected a new name."),
        (("plan", "new", "/nowhere"), "expected a folder, a file with an address a line"),
        (("plan", "a/b", "."), "expected letters, digits and hyphens"),
        (("plan", "new", "project:x"), "expected Label Studio's address and a token"),
        (("push", "known"), "expected Label Studio's address and a token"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_plan(home, "known", champion(home), [Item("a", "/a.png")], 1)
    for name in [name for name in os.environ if name.startswith("DERMLOOP_")]:
        monkeypatch.delenv(name)
    done = CliRunner().invoke(app, [*arguments, "--home", str(home)])
    assert isinstance(done.exception, BulkError) and sentence in str(done.exception)


def test_pictures_of_the_same_name_are_refused_before_anything_is_written(home: Path) -> None:
    with pytest.raises(BulkError, match="twice in the source"):
        make_plan(home, "twice", "v", [Item("a", "/1.png"), Item("a", "/2.png")], 2)
    assert not (home / "bulk" / "twice").exists()
    assert list((home / "bulk").iterdir()) == []
