"""What people read: one self-contained HTML report for a bundle, alone or beside another, and its model card."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from converters.dataset import DatasetVersion, Split
from ml_backend.bundle import ClassifierSpec, ModelBundle
from training import charts, comparison, curves, metrics, pictures
from training.cases import CaseTable
from training.comparison import Difference
from training.gate import GateDecision
from training.report import EvaluationReport, Metric, SliceMetric
from training.words import HEADLINES, Wording, wording

DISCLAIMER = "Supports annotation and research; no diagnosis."
HTML = "report.html"
CARD = "MODEL_CARD.md"


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled SVG with a sentence on how to read it."""

    title: str
    says: str
    svg: str


@dataclass(frozen=True, slots=True)
class Row:
    """One metric in words, with its interval as a strip and the difference to the other model where there is one."""

    metric: Metric
    words: Wording
    strip: Markup
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One slice: its attribute and value, and its metrics by name."""

    attribute: str
    value: str
    metrics: Mapping[str, SliceMetric]


def write_pages(
    bundle: ModelBundle,
    version: DatasetVersion,
    report: EvaluationReport,
    champion: EvaluationReport | None = None,
    decision: GateDecision | None = None,
) -> tuple[Path, Path]:
    """Writes the HTML report and the model card beside a bundle and returns where they are."""
    page, card = bundle.root / HTML, bundle.root / CARD
    page.write_text(html_report(bundle, version, report, champion, decision), encoding="utf-8")
    card.write_text(model_card(bundle, report, decision), encoding="utf-8")
    return page, card


def html_report(
    bundle: ModelBundle,
    version: DatasetVersion,
    report: EvaluationReport,
    champion: EvaluationReport | None = None,
    decision: GateDecision | None = None,
) -> str:
    """One HTML page with everything measured, its curves, and the worst mistakes as pictures; nothing is fetched.

    With another model's report on the same images every figure stands beside its own, with the paired difference.
    """
    table = report.table()
    rows = tuple(_rows(report, champion))
    by_name = {row.metric.name: row for row in rows}
    spec = bundle.classifier
    return _template("report.html").render(
        disclaimer=DISCLAIMER,
        bundle=bundle,
        report=report,
        champion=champion,
        decision=decision,
        headlines=[by_name[name] for name in HEADLINES if name in by_name],
        rows=rows,
        charts=tuple(_charts(table, champion.table() if champion else None, report)),
        classes=curves.class_table(table) if report.has_classifier else (),
        names={diagnosis.code: diagnosis.name for diagnosis in bundle.taxonomy.diagnoses},
        thresholds=curves.threshold_table(table) if report.has_classifier else (),
        flagged=metrics.share(table.flagged, np.ones(len(table.readings))),
        coverage=_coverage(spec, table),
        raw_error=curves.uncalibrated_error(table, spec.temperature) if spec else math.nan,
        sliced=list(dict.fromkeys(part.metric.name for part in report.slices)),
        slices=tuple(_slice_rows(report)),
        mistakes=tuple(pictures.mistakes(bundle, version, report)),
        missed=tuple(pictures.missed(bundle, version, report)),
        lesions=sum(case.lesions for case in report.cases),
        groups=len({case.group for case in report.cases}),
        synthetic=sum(item.record.synthetic for item in version.dataset.only(Split(report.split))),
    )


def model_card(bundle: ModelBundle, report: EvaluationReport, decision: GateDecision | None = None) -> str:
    """A model card in Markdown: what the bundle is, what it was trained and measured on, what it must not be used for.

    Source: Mitchell et al. 2019, Model Cards for Model Reporting.
    """
    known = sorted({f"{part.attribute} {part.value}" for part in report.slices if part.evidence})
    unknown = sorted({f"{part.attribute} {part.value}" for part in report.slices} - set(known))
    return _template("model_card.md").render(
        disclaimer=DISCLAIMER, bundle=bundle, report=report, decision=decision, slices=known, unknown=unknown
    )


def _template(name: str) -> jinja2.Template:
    folder = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    environment = jinja2.Environment(
        loader=folder, autoescape=name.endswith(".html"), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = _figure
    environment.filters["milliseconds"] = lambda value: "–" if math.isnan(value) else f"{value:.0f}"
    environment.filters["percent"] = lambda value: "–" if math.isnan(value) else f"{value:.0%}"
    environment.filters["signed"] = lambda value: "–" if math.isnan(value) else f"{value:+.3f}".replace("-", "−")
    environment.globals["words"] = wording
    return environment.get_template(name)


def _figure(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def _rows(report: EvaluationReport, other: EvaluationReport | None) -> Iterator[Row]:
    gaps = {one.metric: one for one in comparison.differences(report, other)} if other else {}
    for metric in report.metrics:
        gap = gaps.get(metric.name)
        strip = charts.interval_bar(metric.value, metric.low, metric.high, gap.other if gap else None)
        yield Row(metric, wording(metric.name), Markup(strip), gap)


def _slice_rows(report: EvaluationReport) -> Iterator[SliceRow]:
    found: dict[tuple[str, str], dict[str, SliceMetric]] = {}
    for part in report.slices:
        found.setdefault((part.attribute, part.value), {})[part.metric.name] = part
    for (attribute, value), figures in found.items():
        yield SliceRow(attribute, value, figures)


def _charts(table: CaseTable, champion: CaseTable | None, report: EvaluationReport) -> Iterator[Chart]:
    both = [("this model", table)] + ([("the other", champion)] if champion is not None else [])
    if report.has_detector:
        found = [(name, curves.precision_recall(cases)) for name, cases in both]
        says = "Right boxes among those drawn, against lesions found."
        yield Chart("Detection: precision and recall", says, charts.line_chart(found, "recall", "precision"))
        found = [(name, curves.froc(cases)) for name, cases in both]
        drawn = charts.line_chart(found, "false alarms per image", "sensitivity", x_most=4.0)
        yield Chart("Detection: FROC", "Lesions found, against false alarms allowed.", drawn)
    if report.has_classifier:
        matrix = charts.matrix_chart(table.confusion(table.ones), table.classes)
        yield Chart("Confusion matrix", "Rows are the truth, columns the answer.", matrix)
        bins = tuple((one.certainty, one.right) for one in curves.reliability(table))
        drawn = charts.line_chart([("this model", bins)], "certainty", "share right", diagonal=True, dots=True)
        yield Chart("Reliability", "On the dashed line certainty is what it says.", drawn)
        found = [(name, curves.abstention(cases)) for name, cases in both]
        drawn = charts.line_chart(found, "share answered", "accuracy of the answers")
        yield Chart("Abstention", "Accuracy when unsure readings go to a person.", drawn)


def _coverage(spec: ClassifierSpec | None, table: CaseTable) -> curves.Coverage | None:
    if spec is None or spec.conformal_threshold is None:
        return None
    return curves.coverage(table, spec.conformal_threshold)
