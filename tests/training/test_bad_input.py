"""What cannot be trained on ends in a sentence with its cure, and nothing half-made stays behind."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_serving import bundle, colour_classifier
from builders_training import TAXONOMY, version_of

from converters.dataset import Dataset, DatasetVersion, Split, freeze
from converters.errors import DatasetError
from converters.splits import SplitPolicy, split
from converters.taxonomy import Target
from ml_backend.bundle import ClassifierSpec, champion_version, list_bundles, write_bundle
from training import classifier, registry, retrain, runs
from training.config import TrainingConfig
from training.errors import DataError, RunError
from training.runs import RunState

SETTINGS = TrainingConfig()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Inside the block no file grows beyond so many bytes: what a full disk does, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refused(version: DatasetVersion, home: Path, only: retrain.Only) -> str:
    """The run's last word after a training that must fail; nothing may be registered, the champion stays."""
    before = champion_version(home / "models"), list_bundles(home / "models")
    with pytest.raises((DataError, DatasetError, RunError)) as refusal:
        retrain.retrain(version, models=home / "models", runs=home / "runs", config=SETTINGS, only=only)
    assert (champion_version(home / "models"), list_bundles(home / "models")) == before
    [folder] = [path for path in (home / "runs").iterdir() if (path / runs.STATUS).is_file()]
    status = runs.read_status(folder)
    assert status.state is RunState.FAILED
    assert status.text == str(refusal.value)
    return status.text


@pytest.mark.parametrize("change", ["deleted", "changed"])
def test_an_image_lost_after_the_freeze_is_named_before_anything_is_trained(tmp_path: Path, change: str) -> None:
    bundle(tmp_path)
    version = version_of(tmp_path, {Split.TRAIN: 3, Split.VAL: 2, Split.TEST: 2})
    path = version.path(version.dataset.only(Split.TEST)[0])
    path.unlink()
    if change == "changed":
        path.write_bytes(b"other")
    words = refused(version, tmp_path, "detector")
    assert path.name in words
    assert "Restore it or freeze again" in words


def test_one_patient_alone_gives_no_validation_and_says_so(tmp_path: Path) -> None:
    bundle(tmp_path)
    plain = version_of(tmp_path / "plain", {Split.TRAIN: 8})
    items = [replace(one, record=replace(one.record, patient_id="ada"), split=None) for one in plain.dataset.items]
    sources = {one.record.image_id: plain.path(one) for one in plain.dataset.items}
    version = freeze(split(Dataset(TAXONOMY, tuple(items)), SplitPolicy()), sources, tmp_path / "datasets", {})
    assert {one.split for one in version.dataset.items} == {Split.TRAIN}
    for number, stage in enumerate(("detector", "classifier")):
        home = tmp_path / str(number)
        bundle(home)
        words = refused(version, home, stage)
        assert "val" in words
        assert "Approve more images" in words


def test_a_single_class_teaches_no_classifier(tmp_path: Path) -> None:
    bundle(tmp_path)
    version = version_of(tmp_path, {Split.TRAIN: 4, Split.VAL: 2, Split.TEST: 2}, ("nv",))
    words = refused(version, tmp_path, "classifier")
    assert "two or more of low, moderate, high" in words


def test_a_full_disk_is_told_with_the_way_to_go_on_and_leaves_no_half_made_file(tmp_path: Path) -> None:
    bundle(tmp_path)
    version = version_of(tmp_path, {Split.TRAIN: 6, Split.VAL: 2, Split.TEST: 2})
    with room_for(8_000):
        words = refused(version, tmp_path, "classifier")
    assert "room and rights to write" in words
    assert "--resume" in words
    left = [path for path in (tmp_path / "runs" / "cache").rglob("*") if path.is_file()]
    assert left == []


def test_a_bundle_that_finds_no_room_is_not_there_at_all(tmp_path: Path) -> None:
    classes = TAXONOMY.classes(Target.SEVERITY)
    stage = (colour_classifier(tmp_path / "c.onnx", 3), ClassifierSpec(Target.SEVERITY, classes, input_size=32))
    options = {"name": "mine", "taxonomy": TAXONOMY, "detector": None, "classifier": stage, "lineage": {}}
    with room_for(100), pytest.raises(OSError, match="File too large"):
        write_bundle(tmp_path / "models", **options)
    assert list((tmp_path / "models").iterdir()) == []
    assert write_bundle(tmp_path / "models", **options).version.startswith("mine-")


def test_a_promotion_that_finds_no_room_leaves_log_and_champion_as_they_were(tmp_path: Path) -> None:
    one, two = (bundle(tmp_path, champion=False, name=name) for name in ("one", "two"))
    models = one.root.parent
    first = registry.promote(models, one.version, None, why="first", force=True)
    with room_for((models / registry.LOG).stat().st_size + 20), pytest.raises(OSError, match="No space left"):
        registry.promote(models, two.version, None, why="second", force=True)
    assert (registry.history(models), champion_version(models)) == ((first,), one.version)
    registry.promote(models, two.version, None, why="again", force=True)
    assert champion_version(models) == two.version


def test_a_command_on_a_full_disk_ends_in_a_sentence(tmp_path: Path) -> None:
    one = bundle(tmp_path, champion=False)
    command = (
        f"ulimit -f 0; exec {sys.executable} -c 'from dermloop.cli import main; main()' "
        f"promote {one.version} --home {tmp_path} --why better --force"
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Free space or grant rights" in done.stderr
    assert "Traceback" not in done.stderr
    assert registry.history(one.root.parent) == ()


def test_a_class_without_crops_and_one_missing_from_validation_are_told() -> None:
    classes = TAXONOMY.classes(Target.SEVERITY)
    words = classifier.untaught(np.array([0, 2, 2]), np.array([2]), classes)
    assert words == ("no training crop of moderate: approve some", "no validation crop of low, moderate: approve some")
    assert classifier.untaught(np.array([0, 1, 2]), np.array([0, 1, 2]), classes) == ()
