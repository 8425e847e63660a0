"""A patient withdraws: which dataset versions and models saw the images, and the successors without them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters import dataset as datasets
from converters.dataset import Dataset, DatasetVersion, freeze
from ml_backend import bundle as bundles
from ml_backend.bundle import ModelBundle
from training.errors import DataError

_DATASETS = ("dataset", "detector_dataset", "classifier_dataset", "calibration")
"""What a bundle's lineage calls the versions that it learnt from; the last are those of 8-bit weights."""


@dataclass(frozen=True, slots=True)
class Traces:
    """Where a patient's images went: their ids, the versions that hold them, the models that learnt from them.

    `models` were trained on such a version; `descendants` were not, but started from one that was.
    """

    patient: str
    images: tuple[str, ...]
    versions: tuple[DatasetVersion, ...]
    models: tuple[str, ...]
    descendants: tuple[str, ...]


def trace(patient: str, folder: Path, models: Path) -> Traces:
    """The traces of a patient in all dataset versions under `folder` and all bundles under `models`."""
    held = {version.root: _images_of(patient, version) for version in datasets.versions(folder)}
    versions = tuple(version for version in datasets.versions(folder) if held[version.root])
    images = sorted({image for found in held.values() for image in found})
    digests = {version.digest for version in versions}
    known = [bundles.load_bundle(models / name) for name in bundles.list_bundles(models)]
    direct = {one.version for one in known if digests & {one.lineage.get(name, "") for name in _DATASETS}}
    descended = _descendants(known, direct)
    return Traces(patient, tuple(images), versions, tuple(sorted(direct)), tuple(sorted(descended)))


def successors(traces: Traces, folder: Path) -> tuple[DatasetVersion, ...]:
    """Frozen successors of the traced versions without the patient's images; the old ones stay until deleted.

    Raises DataError where nothing would be left of a version.
    """
    return tuple(_without(traces, version, folder) for version in traces.versions)


def _images_of(patient: str, version: DatasetVersion) -> tuple[str, ...]:
    return tuple(item.record.image_id for item in version.dataset.items if item.record.patient_id == patient)


def _descendants(known: list[ModelBundle], direct: set[str]) -> set[str]:
    seen = set(direct)
    while more := {one.version for one in known if one.lineage.get("parent") in seen and one.version not in seen}:
        seen |= more
    return seen - direct


def _without(traces: Traces, version: DatasetVersion, folder: Path) -> DatasetVersion:
    left = tuple(item for item in version.dataset.items if item.record.patient_id != traces.patient)
    if not left:
        raise DataError(version.root.name, 0, "images of other patients", "Delete the version instead.")
    sources = {item.record.image_id: version.path(item) for item in left}
    settings = {**version.settings, "withdrawn_from": version.digest}
    return freeze(Dataset(version.dataset.taxonomy, left), sources, folder, settings)
