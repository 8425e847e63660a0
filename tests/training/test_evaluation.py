"""Evaluation runs what is served, and its report survives the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders_serving import bundle
from builders_training import QUICK, report_of, served_version

from converters.dataset import Split
from ml_backend.pipeline import Pipeline
from ml_backend.reading import Reading
from training import config, datasets, report, retrain
from training.cases import ImageCase
from training.config import EvaluationConfig, TrainingConfig
from training.decoy import worse_candidate
from training.errors import DataError, EvaluationError
from training.evaluation import answers_of, best_threshold, cases_of, evaluate


def test_a_detector_that_finds_everything_measures_so(tmp_path: Path) -> None:
    found = evaluate(bundle(tmp_path), served_version(tmp_path, ungradable=True), Split.TEST, QUICK)
    assert found.value("map50") == pytest.approx(1.0)
    assert found.value("detection_sensitivity") == 1.0
    assert found.value("false_positives_per_image") == 0.0
    assert (len(found.cases), found.skipped) == (5, 1)
    assert found.ms_per_image > 0
    metric = found.get("balanced_accuracy")
    assert metric is not None
    assert metric.cases == 4


def test_a_report_survives_the_disk(tmp_path: Path) -> None:
    found = evaluate(bundle(tmp_path), served_version(tmp_path), Split.TEST, QUICK)
    report.save(found, tmp_path / "report.json")
    loaded = report.load(tmp_path / "report.json")
    assert report.encode(loaded) == report.encode(found)


def test_one_part_alone_measures_only_itself(tmp_path: Path) -> None:
    version = served_version(tmp_path)
    blind = evaluate(bundle(tmp_path / "c", detector=False), version, Split.TEST, QUICK)
    silent = evaluate(bundle(tmp_path / "d", classifier=False), version, Split.TEST, QUICK)
    assert blind.get("map50") is None
    assert blind.get("balanced_accuracy") is not None
    assert silent.get("map50") is not None
    assert silent.get("balanced_accuracy") is None


def test_detections_under_the_threshold_count_for_the_curve_but_are_not_served(tmp_path: Path) -> None:
    found = evaluate(bundle(tmp_path, score=0.1), served_version(tmp_path), Split.TEST, QUICK)
    assert found.value("map50") == pytest.approx(1.0)
    assert found.value("detection_sensitivity") == 0.0


@pytest.mark.parametrize("segment", [False, True])
@pytest.mark.parametrize("score", [0.9, 0.1])
def test_one_pass_answers_as_each_stage_does_on_its_own(tmp_path: Path, score: float, segment: bool) -> None:
    one, version = bundle(tmp_path, score=score, segment=segment), served_version(tmp_path)
    assert one.detector
    items = version.dataset.only(Split.TEST)
    images = [datasets.read_decoded(version, item, one) for item in items]
    faint = replace(one.detector, score_threshold=0.001, max_detections=100)
    finder, reader = Pipeline.open(replace(one, detector=faint)), Pipeline.open(one)
    for item, image, answer in zip(items, images, answers_of(one, version, items), strict=True):
        found, served = finder.predict([image])[0], reader.predict([image])[0]
        assert answer.boxes == tuple(lesion.box for lesion in found.lesions)
        assert answer.scores == tuple(lesion.score for lesion in found.lesions)
        outlines = [lesion.shape for lesion in served.lesions]
        assert list(answer.outlines) == outlines + [None] * (len(answer.boxes) - len(outlines))
        for lesion, its, again in zip(item.truth.lesions, answer.readings, answer.served, strict=True):
            assert told(its) == pytest.approx(told(reader.read([(image, lesion.box)])[0]), abs=1e-6)
            if lesion.diagnosis == "mel" and served.lesions:
                assert told(again) == pytest.approx(told(served.readings[0]), abs=1e-6)
            else:
                assert again is None


def told(reading: Reading | None) -> dict[str, float]:
    assert reading is not None
    return dict(reading.probabilities)


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train split"):
        cases_of(bundle(tmp_path), served_version(tmp_path), Split.TRAIN)


def test_a_malformed_report_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"format": 1}')
    with pytest.raises(EvaluationError, match=r"report\.json"):
        report.load(tmp_path / "report.json")


def test_slices_under_the_minimum_are_no_evidence() -> None:
    found = report.summarise_slices(report_of(40).table(), EvaluationConfig(minimum_slice=20), frozenset(report.Part))
    evidence = {(part.value, part.metric.name): part.evidence for part in found}
    assert evidence[("2", "map50")]
    assert not evidence[("6", "map50")]


def test_the_best_threshold_separates_hits_from_false_alarms() -> None:
    cases = [
        ImageCase(str(n), str(n), 1, (0.5, 0.2), tuple((True, False) for _ in range(10)), (True,)) for n in range(5)
    ]
    threshold = best_threshold(cases)
    assert threshold is not None
    assert 0.2 < threshold <= 0.5
    assert best_threshold([ImageCase("1", "1", 1, (), tuple(() for _ in range(10)))]) is None


def test_a_deliberately_worse_candidate_is_refused_with_reasons(tmp_path: Path) -> None:
    version, settings = served_version(tmp_path), config.recipe("loop")
    champion = bundle(tmp_path)
    worse = worse_candidate(champion, champion.root.parent)
    assert worse.lineage["purpose"].startswith("deliberately worse")
    reports = [retrain.evaluate(one, version, settings) for one in (worse, champion)]
    decision = retrain.decide(reports[0], reports[1], settings)
    assert not decision.passed
    assert decision.reasons


def test_a_report_is_measured_once(tmp_path: Path) -> None:
    version, one = served_version(tmp_path), bundle(tmp_path)
    first = retrain.evaluate(one, version, TrainingConfig(evaluation=QUICK))
    assert report.encode(retrain.evaluate(one, version, TrainingConfig())) == report.encode(first)
