"""What machines share on S3: immutable folders, a log that only grows, one pointer; on moto's server over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from builders_serving import bundle
from builders_training import version_of
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from converters.dataset import Split
from dermloop.cli import app
from ml_backend.bundle import ModelBundle, champion_version
from training import registry, remote
from training.errors import RegistryError
from training.gate import GateDecision
from training.registry import Change, Promotion
from training.remote import RemoteRegistry

BUCKET, ADDRESS = "models", "s3://models/skin"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    for row in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=row["Key"])
    client.delete_bucket(Bucket=BUCKET)


def promoted(one: ModelBundle, there: RemoteRegistry) -> Promotion:
    decision = GateDecision(True, "clinical", one.version, None)
    return registry.promote(one.root.parent, one.version, decision, why="better", who="ada", shared=there)


def test_a_dataset_goes_there_and_comes_back_with_every_digest_checked(s3: Any, tmp_path: Path) -> None:
    version, there = version_of(tmp_path, {Split.TRAIN: 3, Split.VAL: 1}), RemoteRegistry(ADDRESS)
    assert there.push_dataset(version) == 6
    assert there.push_dataset(version) == 0
    back = there.pull_dataset(version.root.name, tmp_path / "elsewhere")
    back.verify()
    assert (back.digest, back.dataset) == (version.digest, version.dataset)
    image = version.dataset.items[0].record.uri
    s3.put_object(Bucket=BUCKET, Key=f"skin/datasets/{version.root.name}/{image}", Body=b"other pixels")
    with pytest.raises(RegistryError, match=r"images/.*Restore the object"):
        there.pull_dataset(version.root.name, tmp_path / "third")
    assert not list((tmp_path / "third").iterdir())


def test_an_upload_that_was_killed_is_not_there_and_is_finished_by_the_next(s3: Any, tmp_path: Path) -> None:
    one, there = bundle(tmp_path, champion=False), RemoteRegistry(ADDRESS)
    there.push_model(one)
    s3.delete_object(Bucket=BUCKET, Key=f"skin/models/{one.version}/{remote.MARK}")
    with pytest.raises(RegistryError, match="not there"):
        there.pull_model(one.version, tmp_path / "elsewhere")
    assert there.push_model(one) == 3
    assert there.pull_model(one.version, tmp_path / "elsewhere").version == one.version


def test_a_version_never_changes(s3: Any, tmp_path: Path) -> None:
    one, there = bundle(tmp_path, champion=False), RemoteRegistry(ADDRESS)
    there.push_model(one)
    one.detector_path.write_bytes(b"other weights")
    with pytest.raises(RegistryError, match="A version never changes"):
        there.push_model(one)


def test_promotions_and_rollbacks_are_told_in_one_log_and_the_pointer_follows(s3: Any, tmp_path: Path) -> None:
    one, other = (bundle(tmp_path, champion=False, name=name) for name in ("one", "two"))
    there, models = RemoteRegistry(ADDRESS), one.root.parent
    entries = [promoted(one, there), promoted(other, there)]
    entries.append(registry.rollback(models, why="worse in use", who="ben", shared=there))
    assert there.history() == registry.history(models) == tuple(entries)
    assert there.pointer() == there.champion() == champion_version(models) == one.version
    assert entries[-1].change is Change.ROLLBACK


def test_of_many_who_promote_at_once_exactly_one_wins_and_the_others_change_nothing(s3: Any, tmp_path: Path) -> None:
    candidates = [bundle(tmp_path / name, champion=False, name=name) for name in ("a", "b", "c", "d")]

    def attempt(one: ModelBundle) -> Promotion | None:
        try:
            return promoted(one, RemoteRegistry(ADDRESS))
        except RegistryError:
            return None

    with ThreadPoolExecutor(4) as pool:
        won = [entry for entry in pool.map(attempt, candidates) if entry is not None]
    assert len(won) == 1
    there = RemoteRegistry(ADDRESS)
    assert there.history() == tuple(won)
    assert there.pointer() == won[0].version
    assert [champion_version(one.root.parent) for one in candidates].count(None) == 3


def test_a_pointer_left_behind_by_a_killed_process_is_put_right_by_the_next_reader(s3: Any, tmp_path: Path) -> None:
    one, other = (bundle(tmp_path, champion=False, name=name) for name in ("one", "two"))
    there = RemoteRegistry(ADDRESS)
    promoted(one, there)
    before = s3.get_object(Bucket=BUCKET, Key="skin/champion.json")["Body"].read()
    promoted(other, there)
    s3.put_object(Bucket=BUCKET, Key="skin/champion.json", Body=before)
    assert there.pointer() == one.version
    assert there.champion() == other.version
    assert there.pointer() == other.version


def test_a_machine_with_a_champion_of_its_own_begins_an_empty_registry(s3: Any, tmp_path: Path) -> None:
    one, there = bundle(tmp_path), RemoteRegistry(ADDRESS)
    other = bundle(tmp_path, champion=False, name="next")
    assert promoted(other, there).previous == one.version
    assert there.pointer() == other.version


def test_a_model_that_was_never_sent_cannot_be_promoted_there(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="Push it first"):
        RemoteRegistry(ADDRESS).record(Promotion(Change.PROMOTE, "ghost-1", None, "ada", "now", "hope"))


def test_another_machine_serves_the_champion_within_seconds(s3: Any, tmp_path: Path) -> None:
    one, there = bundle(tmp_path, champion=False), RemoteRegistry(ADDRESS)
    promoted(one, there)
    began = time.monotonic()
    options = ["--home", str(tmp_path / "other"), "--registry", ADDRESS, "--json"]
    answer = CliRunner().invoke(app, ["pull", "model", *options], catch_exceptions=False)
    assert json.loads(answer.stdout)["version"] == one.version
    assert champion_version(tmp_path / "other" / "models") == one.version
    assert registry.history(tmp_path / "other" / "models") == there.history()
    assert time.monotonic() - began < 5


def test_a_store_that_refuses_is_told_in_a_sentence(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RegistryError, match=r"NoSuchBucket.*Check bucket"):
        RemoteRegistry("s3://nowhere/skin").history()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RegistryError, match=r"EndpointConnectionError.*Check bucket"):
        RemoteRegistry(ADDRESS).pointer()
    with pytest.raises(RegistryError, match="s3://bucket"):
        RemoteRegistry("/folder")
