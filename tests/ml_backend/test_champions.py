"""A registry on S3 that a host follows: bundles by digest in a folder of its own, and what happens when it is away."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from builders_registry import ADDRESS, BUCKET, SharedRegistry, shared_registry
from builders_serving import bundle

from ml_backend.bundle import ModelBundle, list_bundles
from ml_backend.champions import RegistryChampions
from ml_backend.errors import SettingsError
from ml_backend.host import PipelineHost
from ml_backend.remote_folders import RemoteFolders
from ml_backend.s3 import ObjectStore
from ml_backend.settings import read_settings
from training.remote import RemoteRegistry


@pytest.fixture(scope="module")
def store() -> Iterator[SharedRegistry]:
    with shared_registry() as made:
        yield made


@pytest.fixture
def shared(store: SharedRegistry) -> Iterator[SharedRegistry]:
    yield store
    if store.server is None:
        store.start()
    store.empty()


def promoted(shared: SharedRegistry, machine: Path, name: str = "tiny") -> ModelBundle:
    made = bundle(machine, name=name, champion=False)
    shared.promote(made)
    return made


def a_host(shared: SharedRegistry, cache: Path) -> PipelineHost:
    """A host that looks when it is told to."""
    return PipelineHost(RegistryChampions(RemoteFolders(ADDRESS, ObjectStore(shared.endpoint)), cache), threads=1)


def test_a_promoted_bundle_is_brought_once_and_served_from_the_folder(shared: SharedRegistry, tmp_path: Path) -> None:
    host = a_host(shared, tmp_path / "cache")
    host.refresh()
    assert (host.state.version, host.state.error) == (None, None)
    one = promoted(shared, tmp_path / "machine")
    host.refresh()
    assert (host.state.version, host.state.error, host.state.loading) == (one.version, None, False)
    (row,) = shared.client.list_objects_v2(Bucket=BUCKET, Prefix=f"skin/models/{one.version}/d")["Contents"]
    shared.client.delete_object(Bucket=BUCKET, Key=row["Key"])
    other = a_host(shared, tmp_path / "cache")
    other.refresh()
    assert other.state.version == one.version


def test_what_was_served_is_served_on_and_again_while_the_registry_is_away(
    shared: SharedRegistry, tmp_path: Path
) -> None:
    one = promoted(shared, tmp_path / "machine")
    host, cache = a_host(shared, tmp_path / "cache"), tmp_path / "cache"
    host.refresh()
    shared.stop()
    host.refresh()
    assert host.state.version == one.version
    assert "champion.json: got 'EndpointConnectionError'" in (host.state.error or "")
    assert "What was served before is served on" in (host.state.error or "")
    late = a_host(shared, cache)
    late.refresh()
    assert (late.state.version, late.state.error) == (one.version, host.state.error)
    empty = a_host(shared, tmp_path / "empty")
    empty.refresh()
    assert empty.state.version is None and "served on" not in (empty.state.error or "")
    shared.start()
    for each in (host, late, empty):
        each.refresh()
        assert (each.state.version, each.state.error) == (one.version, None)


def test_an_object_with_other_bytes_is_refused_and_served_once_it_is_mended(
    shared: SharedRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = a_host(shared, tmp_path / "cache")
    one = promoted(shared, tmp_path / "machine")
    host.refresh()
    other = promoted(shared, tmp_path / "machine", "next")
    key = f"skin/models/{other.version}/detector.onnx"
    shared.client.put_object(Bucket=BUCKET, Key=key, Body=b"other weights")
    host.refresh()
    assert host.state.version == one.version
    assert f"models/{other.version}/detector.onnx" in (host.state.error or "") and "SHA-256" in (host.state.error or "")
    assert list_bundles(tmp_path / "cache") == (one.version,)
    shared.client.put_object(Bucket=BUCKET, Key=key, Body=other.detector_path.read_bytes())
    host.refresh()
    assert host.state.version == one.version, "a refused champion is left alone for a while"
    monkeypatch.setattr("ml_backend.host._AGAIN_SECONDS", 0.0)
    host.refresh()
    assert (host.state.version, host.state.error) == (other.version, None)


def test_a_bundle_of_a_newer_dermloop_is_refused_and_brought_once(
    shared: SharedRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = a_host(shared, tmp_path / "cache")
    one = promoted(shared, tmp_path / "machine")
    host.refresh()
    newer = bundle(tmp_path / "machine", name="newer", champion=False)
    header = orjson.loads((newer.root / "bundle.json").read_bytes())
    (newer.root / "bundle.json").write_bytes(orjson.dumps({**header, "format": 2}))
    RemoteRegistry(ADDRESS).push_model(newer)
    pointer = orjson.dumps({"version": newer.version, "entry": 2})
    shared.client.put_object(Bucket=BUCKET, Key="skin/champion.json", Body=pointer)
    monkeypatch.setattr("ml_backend.host._AGAIN_SECONDS", 0.0)
    host.refresh()
    brought = (tmp_path / "cache" / newer.version / "bundle.json").stat().st_ino
    host.refresh()
    assert host.state.version == one.version and "Use a matching dermloop" in (host.state.error or "")
    assert (tmp_path / "cache" / newer.version / "bundle.json").stat().st_ino == brought


def test_a_damaged_folder_is_brought_again(shared: SharedRegistry, tmp_path: Path) -> None:
    one = promoted(shared, tmp_path / "machine")
    a_host(shared, tmp_path / "cache").refresh()
    (tmp_path / "cache" / one.version / "detector.onnx").write_bytes(b"half")
    host = a_host(shared, tmp_path / "cache")
    host.refresh()
    assert (host.state.version, host.state.error) == (one.version, None)
    assert (tmp_path / "cache" / one.version / "detector.onnx").read_bytes() == one.detector_path.read_bytes()


def test_three_bundles_stay_and_what_killed_processes_left_goes(shared: SharedRegistry, tmp_path: Path) -> None:
    host, cache = a_host(shared, tmp_path / "cache"), tmp_path / "cache"
    served = []
    for number in range(5):
        served.append(promoted(shared, tmp_path / "machine", f"model{number}").version)
        if number == 3:
            (cache / ".model9-000.draft").mkdir()
            os.utime(cache / ".model9-000.draft", (time.time() - 7200,) * 2)
            (cache / ".model8-000.draft").mkdir()
        host.refresh()
        assert host.state.version == served[-1]
    assert list_bundles(cache) == tuple(served[-3:])
    assert [path.name for path in cache.glob(".*")] == [".model8-000.draft"]
    shared.rollback(tmp_path / "machine" / "models")
    host.refresh()
    assert host.state.version == served[-2] and list_bundles(cache)[-1] == served[-2]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"[]", "champion.json"), (b"{", "champion.json"), (b'{"version": "../../etc"}', "the name of a version")],
)
def test_a_pointer_that_says_nothing_is_named(
    content: bytes, sentence: str, shared: SharedRegistry, tmp_path: Path
) -> None:
    shared.client.put_object(Bucket=BUCKET, Key="skin/champion.json", Body=content)
    host = a_host(shared, tmp_path / "cache")
    host.refresh()
    assert host.state.version is None and sentence in (host.state.error or "")


def test_a_version_whose_upload_never_ended_is_named(shared: SharedRegistry, tmp_path: Path) -> None:
    shared.client.put_object(Bucket=BUCKET, Key="skin/champion.json", Body=b'{"version": "ghost-1"}')
    host = a_host(shared, tmp_path / "cache")
    host.refresh()
    assert "models/ghost-1: got 'not there'; expected a finished upload" in (host.state.error or "")


def test_a_folder_that_cannot_be_written_is_named(shared: SharedRegistry, tmp_path: Path) -> None:
    promoted(shared, tmp_path / "machine")
    (tmp_path / "file").write_text("")
    host = a_host(shared, tmp_path / "file" / "cache")
    host.refresh()
    assert "Make room, or check who may write there" in (host.state.error or "")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"registry": "/models"}, r"DERMLOOP_ML_REGISTRY: got '/models'; expected s3://bucket or s3://bucket/prefix"),
        ({"registry": "s3:///x"}, "expected s3://bucket or s3://bucket/prefix"),
        ({"registry": ADDRESS, "models": "m"}, "DERMLOOP_ML_REGISTRY and DERMLOOP_ML_MODELS: got 'both'; expected one"),
    ],
)
def test_a_setting_that_cannot_be_meant_stops_the_start(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        read_settings(**given)


def test_without_a_registry_nothing_changes(tmp_path: Path) -> None:
    settings = read_settings(home=tmp_path, registry="")
    assert settings.registry is None and settings.cache_folder == tmp_path / "model-cache"
