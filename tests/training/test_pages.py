"""The report and the card say what was measured, on what, and what nobody knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_serving import bundle
from builders_training import QUICK, report_of, served_version

from converters.dataset import Split
from training import curves, metrics, pages, pictures
from training.cases import measures
from training.comparison import differences
from training.evaluation import evaluate
from training.gate import decide, read_policy
from training.words import wording


def test_the_report_is_one_page_that_fetches_nothing(tmp_path: Path) -> None:
    version, one = served_version(tmp_path), bundle(tmp_path)
    report = evaluate(one, version, Split.TEST, QUICK)
    decision = decide(report, report, read_policy("small-set"))
    page, card = pages.write_pages(one, version, report, report, decision)
    text = page.read_text()
    assert "http" not in text.replace('xmlns="http', "")
    assert "<script" not in text
    for words in (pages.DISCLAIMER, one.version, "map50_95", "no evidence", "synthetic drawings", "refused"):
        assert words in text
    assert text.count("data:image/jpeg;base64,") >= 2
    assert "must not" in card.read_text()
    assert all(reason in card.read_text() for reason in decision.reasons)


def test_markup_in_a_name_stays_text(tmp_path: Path) -> None:
    version, one = served_version(tmp_path), bundle(tmp_path)
    report = evaluate(one, version, Split.TEST, QUICK)
    odd = replace(one, lineage={"<script>": "<b>"})
    assert "<script>" not in pages.html_report(odd, version, report)


def test_curves_end_where_the_figures_are() -> None:
    table = report_of(40, right=0.7).table()
    recall, _ = curves.precision_recall(table)[-1]
    assert recall == pytest.approx(table.found.mean())
    share, right = curves.abstention(table)[-1]
    assert (share, right) == (1.0, pytest.approx((table.probabilities.argmax(axis=1) == table.truth).mean()))
    alarms, sensitivity = curves.froc(table)[-1]
    assert (alarms, sensitivity) == (pytest.approx((~table.hits[0]).mean()), pytest.approx(table.found.mean()))


def test_the_class_table_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    table = report_of(60, right=0.7).table()
    predicted = table.probabilities.argmax(axis=1)
    expected = precision_recall_fscore_support(table.truth, predicted, labels=[0, 2])
    rows = [row for row in curves.class_table(table) if row.support]
    found = [[row.precision for row in rows], [row.recall for row in rows], [row.f1 for row in rows]]
    assert found == [pytest.approx(list(values)) for values in expected[:3]]


def test_a_threshold_of_one_covers_everything() -> None:
    table = report_of(20).table()
    assert curves.coverage(table, 1.0) == curves.Coverage(1.0, 3.0)
    assert curves.coverage(report_of(0).table(), 1.0) is None


def test_an_empty_report_has_no_curves() -> None:
    table = report_of(0).table()
    assert (curves.precision_recall(table), curves.froc(table), curves.abstention(table)) == ((), (), ())
    assert curves.reliability(table) == ()


def test_two_models_stand_side_by_side_with_paired_differences(tmp_path: Path) -> None:
    version, one, other = (
        served_version(tmp_path),
        bundle(tmp_path),
        bundle(tmp_path / "other", name="other", score=0.1),
    )
    reports = [evaluate(each, version, Split.TEST, QUICK) for each in (one, other)]
    text = pages.html_report(one, version, *reports)
    assert "side by side" in text
    assert other.version in text
    assert "Lesions found" in text
    assert "The same" not in text
    gaps = {gap.metric: gap for gap in differences(*reports)}
    found = gaps["detection_sensitivity"]
    assert (found.value, found.other, found.gap, found.better) == (1.0, 0.0, 1.0, 1)
    assert gaps["balanced_accuracy"].better == 0


def test_a_difference_that_is_chance_is_not_called_better_and_a_real_one_is() -> None:
    one, same, worse = (report_of(240, right=right, seed=seed) for right, seed in ((0.85, 1), (0.86, 2), (0.5, 3)))
    assert {gap.better for gap in differences(one, same) if gap.metric == "balanced_accuracy"} == {0}
    assert {gap.better for gap in differences(one, worse) if gap.metric == "balanced_accuracy"} == {1}
    assert {gap.better for gap in differences(worse, one) if gap.metric == "calibration_error"} == {-1}
    assert differences(one, replace(same, split_digest="e" * 64)) == ()


def test_missed_lesions_are_shown_with_their_boxes(tmp_path: Path) -> None:
    version, blind = served_version(tmp_path), bundle(tmp_path, score=0.1)
    report = evaluate(blind, version, Split.TEST, QUICK)
    shown = list(pictures.missed(blind, version, report))
    assert len(shown) == 4
    assert {one.words for one in shown} == {"1 missed, 0 false"}


def test_calibration_before_the_temperature_is_that_of_the_raw_answers() -> None:
    table = report_of(200, right=0.8).table()
    raw = table.probabilities**2 / (table.probabilities**2).sum(axis=1, keepdims=True)
    expected = metrics.calibration_error(raw, table.truth, np.ones(len(raw)))
    assert curves.uncalibrated_error(table, 2.0) == pytest.approx(expected)
    assert curves.uncalibrated_error(table, 1.0) == pytest.approx(
        metrics.calibration_error(table.probabilities, table.truth, np.ones(len(raw)))
    )


def test_a_share_that_was_always_right_is_not_certain_with_few_cases() -> None:
    few, many = (report_of(count, right=1.0).get("malignant_sensitivity") for count in (16, 400))
    assert few is not None
    assert many is not None
    assert (few.value, few.high) == (1.0, 1.0)
    assert few.low == pytest.approx(4 / (4 + 1.96**2), abs=0.001)
    assert few.low < 0.6 < 0.95 < many.low


def test_every_metric_has_its_words() -> None:
    for name in measures(("low",)):
        assert wording(name).name != name
        assert wording(name).says
