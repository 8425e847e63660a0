"""A withdrawn patient's images are found wherever they went, and the successors are free of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders_serving import colour_classifier
from builders_training import TAXONOMY, version_of

from converters.dataset import Dataset, DatasetVersion, Split, freeze
from converters.taxonomy import Target
from ml_backend.bundle import ClassifierSpec, write_bundle
from training.errors import DataError
from training.withdrawal import successors, trace


def with_patients(folder: Path, names: list[str]) -> DatasetVersion:
    plain = version_of(folder / "plain", {Split.TRAIN: len(names)})
    items = tuple(
        replace(item, record=replace(item.record, patient_id=name))
        for item, name in zip(plain.dataset.items, names, strict=True)
    )
    sources = {item.record.image_id: plain.path(item) for item in plain.dataset.items}
    return freeze(Dataset(TAXONOMY, items), sources, folder / "datasets", {})


def model(folder: Path, name: str, **lineage: str) -> str:
    classes = TAXONOMY.classes(Target.SEVERITY)
    graph = colour_classifier(folder / f"{name}.onnx", len(classes))
    stage = (graph, ClassifierSpec(Target.SEVERITY, classes, input_size=32))
    return write_bundle(
        folder / "models", name=name, taxonomy=TAXONOMY, detector=None, classifier=stage, lineage=lineage
    ).version


def test_versions_models_and_their_descendants_are_found(tmp_path: Path) -> None:
    version = with_patients(tmp_path, ["ada", "ben", "ada"])
    seen = model(tmp_path, "seen", classifier_dataset=version.digest)
    child = model(tmp_path, "child", dataset="another", parent=seen)
    model(tmp_path, "stranger", dataset="another")
    found = trace("ada", tmp_path / "datasets", tmp_path / "models")
    assert len(found.images) == 2
    assert [one.digest for one in found.versions] == [version.digest]
    assert (found.models, found.descendants) == ((seen,), (child,))
    small = model(tmp_path, "small", calibration=version.digest)
    assert trace("ada", tmp_path / "datasets", tmp_path / "models").models == tuple(sorted((seen, small)))


def test_the_successor_holds_everybody_else(tmp_path: Path) -> None:
    with_patients(tmp_path, ["ada", "ben", "ada", "cleo"])
    found = trace("ada", tmp_path / "datasets", tmp_path / "models")
    [after] = successors(found, tmp_path / "datasets")
    assert sorted(item.record.patient_id or "" for item in after.dataset.items) == ["ben", "cleo"]
    after.verify()
    assert after.settings["withdrawn_from"] == found.versions[0].digest
    assert len(trace("ben", tmp_path / "datasets", tmp_path / "models").versions) == 2


def test_nobody_is_found_nowhere_and_a_version_of_one_patient_has_no_successor(tmp_path: Path) -> None:
    with_patients(tmp_path, ["ada"])
    assert trace("eve", tmp_path / "datasets", tmp_path / "models").versions == ()
    with pytest.raises(DataError, match="Delete the version"):
        successors(trace("ada", tmp_path / "datasets", tmp_path / "models"), tmp_path / "datasets")
