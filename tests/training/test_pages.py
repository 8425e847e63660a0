"""The report and the card say what was measured, on what, and what nobody knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders_serving import bundle
from builders_training import QUICK, report_of, served_version

from converters.dataset import Split
from training import curves, pages
from training.evaluation import evaluate
from training.gate import decide, read_policy


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
