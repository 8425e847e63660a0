"""Jobs that wait or run are part of a backup: a restore has them wait again, also on another Redis."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders_compose import redis_options
from builders_home import a_full_home
from builders_redis import redis_server

from dermloop.backup import Places, restore, take
from dermloop.errors import BackupError
from dermloop.home import Home
from ml_backend.jobs import QUEUES, RETRAIN, SHARDS, TRAININGS, JobQueue, JobState, request_retrain


def silent(sentence: str) -> None:
    assert sentence


def test_jobs_of_a_redis_come_back_to_another_one_and_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    with redis_server(tmp_path / "one", redis_options()) as one, redis_server(tmp_path / "two") as two:
        monkeypatch.setenv("DERMLOOP_ML_JOBS_URL", one.url)
        full = a_full_home(tmp_path / "home")
        before = put_on_record(one.url)
        assert [state.value for _, state in before] == ["succeeded", "cancelled", "running", "pending", "pending"]
        report = take(full.places, tmp_path, silent)
        assert kinds(one.url) == before
        monkeypatch.setenv("DERMLOOP_ML_JOBS_URL", two.url)
        empty = Places.of(Home(tmp_path / "other"), {})
        queue = JobQueue.open(two.url)
        queue.require_reachable()
        with pytest.raises(BackupError, match=r"job queue: 1 other connections; .*Stop the programs that use it"):
            restore(empty, report.archive, False, silent)
        queue.close()
        restore(empty, report.archive, False, silent)
        again = [(reason, JobState.PENDING if state is JobState.RUNNING else state) for reason, state in before]
        assert kinds(two.url) == again
        assert worked_off(two.url, TRAININGS) == ["approved 20"]
        assert worked_off(two.url, SHARDS) == ["first", "second"]
        with pytest.raises(BackupError, match=r"holds .* already|job queue: is not empty"):
            restore(empty, report.archive, False, silent)
        restore(empty, report.archive, True, silent)
        assert kinds(two.url) == again


def put_on_record(address: str) -> list[tuple[str, JobState]]:
    """Jobs in every state: two retrainings that are over, one that is being done, shards that wait or are to stop."""
    trainings, shards = JobQueue.open(address), JobQueue.open(address, SHARDS)
    trainings.register(RETRAIN, lambda handle: "done")
    trainings.request(RETRAIN, "over", "qa")
    trainings.work_off()
    trainings.request(RETRAIN, "stopped before it began", "qa")
    trainings.cancel(trainings.jobs()[0].id)
    asked = trainings.get(request_retrain(trainings, "approved 20", "qa"))
    trainings._save(replace(asked, state=JobState.RUNNING))
    trainings._huey.dequeue()
    for number in ("first", "second"):
        shards.request("bulk", number, "qa", subject=f"run/{number}")
    trainings.close(), shards.close()
    return kinds(address)


def kinds(address: str) -> list[tuple[str, JobState]]:
    found = []
    for name in QUEUES:
        queue = JobQueue.open(address, name)
        found += [(job.reason, job.state) for job in queue.kept()]
        queue.close()
    return found


def worked_off(address: str, name: str) -> list[str]:
    queue, done = JobQueue.open(address, name), []
    for kind in (RETRAIN, "bulk"):
        queue.register(kind, lambda handle: done.append(handle.job.reason) or "done")
    queue.work_off()
    queue.close()
    return done


def test_a_queue_that_is_away_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = a_full_home(tmp_path / "home")
    monkeypatch.setenv("DERMLOOP_ML_JOBS_URL", "redis://127.0.0.1:9/0")
    with pytest.raises(BackupError, match=r"DERMLOOP_ML_JOBS_URL: .*expected a reachable queue\. Start Redis"):
        take(full.places, tmp_path / "never.tar", silent)
    assert not (tmp_path / "never.tar").exists()
