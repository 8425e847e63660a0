"""A bundle is named by content, appears whole, and is refused once anything in it changed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from builders_serving import bundle, colour_classifier

from converters import taxonomy
from converters.taxonomy import Severity, Target, Taxonomy
from ml_backend.bundle import (
    ClassifierSpec,
    champion_version,
    list_bundles,
    load_bundle,
    set_champion,
    write_bundle,
)
from ml_backend.errors import BundleError


def test_a_written_bundle_reads_back_equal(tmp_path: Path) -> None:
    written = bundle(tmp_path)
    assert load_bundle(written.root, taxonomy.read()) == written
    assert written.version.startswith("tiny-") and len(written.version) == len("tiny-") + 12
    assert written.root == tmp_path / "models" / written.version


def test_the_same_content_gives_the_same_version_and_other_thresholds_another(tmp_path: Path) -> None:
    first, again = bundle(tmp_path), bundle(tmp_path)
    other = bundle(tmp_path, conformal_threshold=0.5)
    assert first == again
    assert other.version != first.version
    assert set(list_bundles(tmp_path / "models")) == {first.version, other.version}


@pytest.mark.parametrize("file", ["detector.onnx", "classifier.onnx"])
def test_a_changed_graph_is_refused(tmp_path: Path, file: str) -> None:
    written = bundle(tmp_path)
    (written.root / file).write_bytes((written.root / file).read_bytes() + b"\0")
    with pytest.raises(BundleError, match=file):
        load_bundle(written.root)


def test_a_changed_threshold_is_refused(tmp_path: Path) -> None:
    written = bundle(tmp_path)
    header = orjson.loads((written.root / "bundle.json").read_bytes())
    header["detector"]["score_threshold"] = 0.01
    (written.root / "bundle.json").write_bytes(orjson.dumps(header))
    with pytest.raises(BundleError, match="changed content"):
        load_bundle(written.root)


def test_a_bundle_of_before_boxes_were_fused_keeps_its_version_and_its_boxes(tmp_path: Path) -> None:
    written = bundle(tmp_path)
    assert written.detector is not None and written.detector.fusion_iou == 0.7
    header = orjson.loads((written.root / "bundle.json").read_bytes())
    del header["detector"]["fusion_iou"]
    content = {key: header[key] for key in ("taxonomy", "detector", "classifier", "lineage")}
    digest = hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
    header["version"] = f"tiny-{digest[:12]}"
    (written.root / "bundle.json").write_bytes(orjson.dumps(header))
    former = load_bundle(written.root)
    assert former.detector == replace(written.detector, fusion_iou=None)
    assert former.version == header["version"] != written.version


def test_a_bundle_for_another_taxonomy_is_refused(tmp_path: Path) -> None:
    known = taxonomy.read()
    renamed = Taxonomy((replace(known.diagnoses[0], severity=Severity.HIGH), *known.diagnoses[1:]))
    with pytest.raises(BundleError, match="severity"):
        load_bundle(bundle(tmp_path).root, renamed)


def test_a_taxonomy_that_grew_still_accepts_the_bundle(tmp_path: Path) -> None:
    known = taxonomy.read()
    grown = known.extended([replace(known.diagnoses[0], id=7, code="new", name="New", aliases=())])
    assert load_bundle(bundle(tmp_path).root, grown).taxonomy == known


def test_classes_out_of_taxonomy_order_are_refused(tmp_path: Path) -> None:
    graph = colour_classifier(tmp_path / "c.onnx", 3)
    spec = ClassifierSpec(Target.SEVERITY, ("high", "low", "moderate"))
    with pytest.raises(BundleError, match="classes"):
        write_bundle(tmp_path, name="x", taxonomy=taxonomy.read(), detector=None, classifier=(graph, spec), lineage={})


def test_the_champion_is_a_pointer_to_a_written_bundle(tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert champion_version(models) is None
    written = bundle(tmp_path, champion=False)
    set_champion(models, written.version)
    assert champion_version(models) == written.version
    for wrong in ("absent-000000000000", "../elsewhere"):
        with pytest.raises(BundleError, match="champion"):
            set_champion(models, wrong)
