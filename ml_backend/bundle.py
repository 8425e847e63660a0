"""Model bundles: what a served version consists of, written whole, named by content, checked before it is loaded."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from converters import taxonomy as taxonomies
from converters.errors import TaxonomyError
from converters.taxonomy import Target, Taxonomy
from converters.whole import whole_folder, write_whole
from ml_backend.errors import BundleError

HEADER = "bundle.json"
CHAMPION = "champion.json"
DETECTOR_FILE = "detector.onnx"
CLASSIFIER_FILE = "classifier.onnx"
_FORMAT = 1
_DETECTOR_SIDE = 640
_CLASSIFIER_SIDE = 1280


class DetectorTask(StrEnum):
    """What the detector draws: boxes, or boxes with masks."""

    DETECT = "detect"
    SEGMENT = "segment"


class Scaling(StrEnum):
    """How 8-bit RGB becomes the classifier's floats."""

    UNIT = "unit"
    SIGNED = "signed"
    CAFFE = "caffe"


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """How to run a detector: side of its square input in pixels, and thresholds in [0, 1].

    Suppression drops boxes that overlap a better one by more than `iou_threshold`. Each box that is kept becomes the
    mean, weighted by score, of all candidates that overlap it by more than `fusion_iou`; None leaves it as it is.
    """

    input_size: int
    task: DetectorTask = DetectorTask.DETECT
    score_threshold: float = 0.25
    iou_threshold: float = 0.5
    max_detections: int = 20
    fusion_iou: float | None = 0.7


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """How to run a classifier and how to read its columns.

    `classes` are the taxonomy's names for `target`, in index order. A crop is the box grown by `crop_padding` of its
    longer side on each side. Probabilities are softmax(logits / `temperature`). A class belongs to the differential
    when 1 - p is at most `conformal_threshold` (split conformal prediction with the least ambiguous set, Sadinle et al.
    2019); None promises no coverage. `operating_point` is the share of malignant diagnoses from which a lesion counts
    as malignant.
    """

    target: Target
    classes: tuple[str, ...]
    input_size: int = 224
    scaling: Scaling = Scaling.CAFFE
    crop_padding: float = 0.15
    temperature: float = 1.0
    conformal_threshold: float | None = None
    operating_point: float | None = None


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """A served version: its folder, its name by content, its taxonomy, and one or both stages."""

    root: Path
    name: str
    version: str
    taxonomy: Taxonomy
    detector: DetectorSpec | None = None
    classifier: ClassifierSpec | None = None
    lineage: Mapping[str, str] = field(default_factory=dict)

    @property
    def detector_path(self) -> Path:
        """Where the detector's graph lies."""
        return self.root / DETECTOR_FILE

    @property
    def classifier_path(self) -> Path:
        """Where the classifier's graph lies."""
        return self.root / CLASSIFIER_FILE

    @property
    def working_side(self) -> int:
        """The long side in pixels that a picture is worked with at: crops need more of it than a detector alone."""
        enough = _DETECTOR_SIDE if self.classifier is None else _CLASSIFIER_SIDE
        return max(enough, self.detector.input_size if self.detector else 0)


def write_bundle(
    models: Path,
    *,
    name: str,
    taxonomy: Taxonomy,
    detector: tuple[Path, DetectorSpec] | None,
    classifier: tuple[Path, ClassifierSpec] | None,
    lineage: Mapping[str, str],
) -> ModelBundle:
    """The bundle of these graphs under `models/<version>`; the same content gives the same folder.

    The folder appears whole or not at all. Raises BundleError without any stage, for a missing graph, and for a
    classifier whose classes are not the taxonomy's.
    """
    _require_name(name)
    if detector is None and classifier is None:
        raise BundleError("bundle", None, "a detector or a classifier", "Name at least one graph.")
    if classifier is not None:
        _require_classes(name, classifier[1], taxonomy)
    content = {
        "taxonomy": taxonomies.encode(taxonomy),
        "detector": _encode_stage(detector, DETECTOR_FILE),
        "classifier": _encode_stage(classifier, CLASSIFIER_FILE),
        "lineage": dict(lineage),
    }
    version = _version(name, content)
    target = models / version
    if not (target / HEADER).is_file():
        header = {"format": _FORMAT, "name": name, "version": version, **content}
        sources = {DETECTOR_FILE: detector, CLASSIFIER_FILE: classifier}
        _write_whole(target, header, {file: stage[0] for file, stage in sources.items() if stage})
    return load_bundle(target)


def load_bundle(folder: Path, expected_taxonomy: Taxonomy | None = None) -> ModelBundle:
    """The bundle in a folder, every digest checked.

    Raises BundleError where a graph or the header changed since it was written, or where the bundle's taxonomy is not
    `expected_taxonomy` or an earlier state of it.
    """
    header = _read_header(folder)
    try:
        bundle = _decode(folder, header)
    except (KeyError, TypeError, ValueError, TaxonomyError) as error:
        raise BundleError(str(folder), str(error), "a complete bundle.json", "Write the bundle again.") from error
    for file, stage in ((DETECTOR_FILE, header["detector"]), (CLASSIFIER_FILE, header["classifier"])):
        if stage is not None:
            _require_digest(folder / file, stage["sha256"])
    if expected_taxonomy is not None:
        _require_taxonomy(bundle, expected_taxonomy)
    return bundle


def list_bundles(models: Path) -> tuple[str, ...]:
    """Versions that lie under `models`, oldest first."""
    headers = sorted(models.glob(f"*/{HEADER}"), key=lambda path: (path.stat().st_mtime_ns, path.parent.name))
    return tuple(header.parent.name for header in headers if not header.parent.name.startswith("."))


def champion_version(models: Path) -> str | None:
    """The version that is served, or None before the first promotion; raises BundleError for a broken pointer."""
    pointer = models / CHAMPION
    try:
        version = orjson.loads(pointer.read_bytes())["version"]
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BundleError(str(pointer), str(error), '{"version": …}', "Promote a bundle again.") from error
    return str(version)


def set_champion(models: Path, version: str) -> None:
    """Points `models/champion.json` at a version, atomically; raises BundleError where there is no such bundle."""
    if Path(version).name != version or not (models / version / HEADER).is_file():
        raise BundleError("champion", version, f"one of {', '.join(list_bundles(models))}", "Name a written bundle.")
    write_whole(models / CHAMPION, orjson.dumps({"version": version}))


def _version(name: str, content: Mapping[str, Any]) -> str:
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return f"{name}-{hashlib.sha256(canonical).hexdigest()[:12]}"


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        header = orjson.loads((folder / HEADER).read_bytes())
        version, name = header["version"], header["name"]
        content = {key: header[key] for key in ("taxonomy", "detector", "classifier", "lineage")}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BundleError(str(folder), str(error), f"a bundle with {HEADER}", "Name a written bundle.") from error
    if header.get("format") != _FORMAT:
        raise BundleError(str(folder), header.get("format"), f"format {_FORMAT}", "Use a matching dermloop.")
    if version != _version(name, content):
        raise BundleError(str(folder / HEADER), "changed content", f"version {version}", "Restore the folder.")
    return dict(header)


def _decode(folder: Path, header: Mapping[str, Any]) -> ModelBundle:
    detector, classifier = header["detector"], header["classifier"]
    known = taxonomies.decode(header["taxonomy"], str(folder / HEADER))
    bundle = ModelBundle(
        root=folder,
        name=str(header["name"]),
        version=str(header["version"]),
        taxonomy=known,
        detector=_decode_detector(detector) if detector else None,
        classifier=_decode_classifier(classifier) if classifier else None,
        lineage={str(key): str(value) for key, value in header["lineage"].items()},
    )
    if bundle.classifier is not None:
        _require_classes(bundle.version, bundle.classifier, known)
    return bundle


def _decode_detector(row: Mapping[str, Any]) -> DetectorSpec:
    return DetectorSpec(
        input_size=int(row["input_size"]),
        task=DetectorTask(row["task"]),
        score_threshold=float(row["score_threshold"]),
        iou_threshold=float(row["iou_threshold"]),
        max_detections=int(row["max_detections"]),
        fusion_iou=_optional(row.get("fusion_iou")),
    )


def _decode_classifier(row: Mapping[str, Any]) -> ClassifierSpec:
    return ClassifierSpec(
        target=Target(row["target"]),
        classes=tuple(str(name) for name in row["classes"]),
        input_size=int(row["input_size"]),
        scaling=Scaling(row["scaling"]),
        crop_padding=float(row["crop_padding"]),
        temperature=float(row["temperature"]),
        conformal_threshold=_optional(row["conformal_threshold"]),
        operating_point=_optional(row["operating_point"]),
    )


def _encode_stage(stage: tuple[Path, DetectorSpec] | tuple[Path, ClassifierSpec] | None, file: str) -> Any:
    if stage is None:
        return None
    path, spec = stage
    row = {name: getattr(spec, name) for name in spec.__dataclass_fields__}
    return {"file": file, "sha256": _file_digest(path), **row}


def _write_whole(target: Path, header: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    with whole_folder(target, HEADER) as draft:
        for name, source in files.items():
            shutil.copyfile(source, draft / name)
        (draft / HEADER).write_bytes(orjson.dumps(header, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2))


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(str(path), str(error), "a readable ONNX file", "Export the model again.") from error


def _require_digest(path: Path, expected: str) -> None:
    if (found := _file_digest(path)) != expected:
        raise BundleError(str(path), found, f"SHA-256 {expected}", "Restore the file or write the bundle again.")


def _require_name(name: str) -> None:
    if not name or not all(part.isalnum() for part in name.replace("_", "-").replace(".", "-").split("-")):
        raise BundleError("bundle name", name, "letters, digits, dots and hyphens", "Choose another name.")


def _require_classes(item: str, spec: ClassifierSpec, known: Taxonomy) -> None:
    if spec.classes != (expected := known.classes(spec.target)):
        raise BundleError(f"{item}: classes", spec.classes, f"{expected}", "Train with the bundle's taxonomy.")


def _require_taxonomy(bundle: ModelBundle, expected: Taxonomy) -> None:
    try:
        bundle.taxonomy.require_prefix_of(expected)
    except TaxonomyError as error:
        raise BundleError(bundle.version, str(error), "the house's taxonomy", "Train with today's taxonomy.") from error


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)
