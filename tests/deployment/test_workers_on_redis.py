"""Two job workers on one Redis: each retraining is done once, and a killed worker's job by the other one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from builders_compose import redis_options
from builders_redis import Redis, redis_server

from ml_backend.errors import JobError
from ml_backend.jobs import RETRAIN, JobHandle, JobQueue, JobState, request_retrain

ROOT = Path(__file__).parents[2]
LEASE = 1.0
TRAINING = """
    import json, os, sys, time
    from dermloop.orphans import end_with_parent
    end_with_parent()
    log, seconds = sys.argv[1], float(sys.argv[2])
    def note(what):
        with open(log, "a") as stream:
            stream.write(json.dumps({"what": what, "worker": os.getppid(), "at": time.time()}) + "\\n")
    note("begin")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.05)
    note("end")
    print(json.dumps({"stage": "promote", "seconds": 1.0, "ok": True}))
"""


@dataclass
class Fleet:
    """Workers as processes on one home and one queue; their trainings write into one log."""

    home: Path
    redis: Redis
    seconds: float
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.home / "trainings.jsonl"

    def start(self) -> subprocess.Popen[bytes]:
        program = self.home / "training.py"
        program.write_text(textwrap.dedent(TRAINING), encoding="utf-8")
        command = [sys.executable, str(program), str(self.log), str(self.seconds)]
        given = f"Path({str(self.home)!r}), {command!r}"
        code = f"from pathlib import Path; from dermloop.worker import consume; consume({given})"
        settings = {"DERMLOOP_ML_JOBS_URL": self.redis.url, "DERMLOOP_ML_JOBS_LEASE": str(LEASE)}
        environment = {**os.environ, **settings, "DERMLOOP_REVIEW_HOME": str(self.home)}
        with (self.home / "worker.log").open("ab") as log:
            worker = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=ROOT, stdout=log, stderr=log)
        self.workers.append(worker)
        return worker

    def notes(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.is_file() else []

    def stop(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGINT)
        for worker in self.workers:
            try:
                worker.wait(15)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with redis_server(folder) as started:
        yield started


@pytest.fixture
def fleet(tmp_path: Path, server: Redis) -> Iterator[Fleet]:
    made = Fleet(tmp_path, server, seconds=1.0)
    yield made
    made.stop()


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def test_of_two_workers_one_trains_and_a_killed_one_is_replaced_by_the_other(fleet: Fleet) -> None:
    fleet.seconds = 2.5
    fleet.start(), fleet.start()
    queue = JobQueue.open(fleet.redis.url, lease=LEASE)
    job = request_retrain(queue, "approved 20", "qa")
    assert request_retrain(queue, "button", "label-studio") == job
    eventually(lambda: len(fleet.notes()) == 1)
    first = next(worker for worker in fleet.workers if worker.pid == fleet.notes()[0]["worker"])
    first.kill()
    first.wait()
    eventually(lambda: queue.get(job).state.final)
    done, notes = queue.get(job), fleet.notes()
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 1)
    assert [note["what"] for note in notes] == ["begin", "begin", "end"]
    assert notes[1]["worker"] == notes[2]["worker"] != notes[0]["worker"]
    assert [found.id for found in queue.jobs()] == [job]
    queue.close()


@pytest.mark.soak
def test_a_worker_that_was_frozen_finds_its_job_with_another_and_stops_its_own_training(fleet: Fleet) -> None:
    fleet.seconds = 60.0
    frozen = fleet.start()
    queue = JobQueue.open(fleet.redis.url, lease=LEASE)
    job = request_retrain(queue, "approved 20", "qa")
    eventually(lambda: len(fleet.notes()) == 1)
    training = psutil.Process(frozen.pid).children()[0]
    frozen.send_signal(signal.SIGSTOP)
    fleet.seconds = 0.5
    fleet.start()
    eventually(lambda: queue.get(job).state is JobState.SUCCEEDED)
    frozen.send_signal(signal.SIGCONT)
    eventually(lambda: not training.is_running() or training.status() == psutil.STATUS_ZOMBIE)
    assert [note["what"] for note in fleet.notes()] == ["begin", "begin", "end"]
    assert queue.get(job).state is JobState.SUCCEEDED
    queue.close()


def test_a_redis_that_is_killed_brings_the_queue_back(tmp_path: Path) -> None:
    with redis_server(tmp_path, redis_options()) as server:
        queue = JobQueue.open(server.url)
        job = request_retrain(queue, "approved 20", "qa")
        server.kill()
        server.start()
        queue.register(RETRAIN, lambda handle: "done")
        assert queue.work_off() == 1
        assert queue.get(job).state is JobState.SUCCEEDED
        queue.close()


def test_two_that_put_the_same_job_back_at_once_have_it_done_once(server: Redis) -> None:
    first, second = (JobQueue.open(server.url, lease=LEASE) for _ in range(2))
    job = first.get(request_retrain(first, "approved 20", "qa"))
    runs: list[str] = []

    def work(handle: JobHandle) -> str:
        runs.append(handle.job.id)
        return "done"

    for queue in (first, second):
        queue.register(RETRAIN, work)
        queue._put_back(job)
    assert first.work_off() + second.work_off() == 3
    assert runs == [job.id]
    first.close(), second.close()


def test_a_job_in_the_hands_of_a_living_worker_is_left_to_it(server: Redis) -> None:
    queue, other = (JobQueue.open(server.url, lease=0.4) for _ in range(2))

    def work(handle: JobHandle) -> str:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            assert other.recover() == ()
            time.sleep(0.1)
        return "done"

    queue.register(RETRAIN, work)
    job = request_retrain(queue, "approved 20", "qa")
    queue.work_off()
    assert queue.get(job).state is JobState.SUCCEEDED
    queue.close(), other.close()


@pytest.mark.parametrize("address", ["redis://127.0.0.1:9/0", "redis://:wrong@127.0.0.1:{port}/0"])
def test_a_queue_that_cannot_be_reached_is_one_sentence(address: str, server: Redis) -> None:
    queue = JobQueue.open(address.format(port=server.port))
    with pytest.raises(JobError, match=r"a reachable queue\. Start Redis, or correct the address"):
        queue.consume()
    queue.close()
