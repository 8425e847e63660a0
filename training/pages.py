"""What people read: one self-contained HTML report for a bundle, and its model card."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from converters.annotation import Lesion
from converters.dataset import DatasetItem, DatasetVersion, Split
from ml_backend import preprocessing
from ml_backend.bundle import ClassifierSpec, ModelBundle
from ml_backend.images import DecodedImage
from ml_backend.pipeline import Pipeline
from ml_backend.preprocessing import Pixels
from ml_backend.reading import Reading
from training import charts, curves, datasets
from training.cases import CaseTable
from training.gate import GateDecision
from training.report import EvaluationReport

DISCLAIMER = "Supports annotation and research; no diagnosis."
HTML = "report.html"
CARD = "MODEL_CARD.md"
_MISTAKES = 8
_PICTURE = 160


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled SVG."""

    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """One lesion read wrongly: truth and answer in words, the crop and its heat-map as data addresses."""

    image_id: str
    words: str
    crop: str
    heat: str


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
    """One HTML page with everything measured, its curves, and the worst mistakes as pictures; nothing is fetched."""
    table = report.table()
    return _template("report.html").render(
        disclaimer=DISCLAIMER,
        bundle=bundle,
        report=report,
        champion=champion,
        decision=decision,
        metrics=[(metric, champion.value(metric.name) if champion else math.nan) for metric in report.metrics],
        charts=tuple(_charts(table, champion.table() if champion else None, report)),
        classes=curves.class_table(table) if report.has_classifier else (),
        thresholds=curves.threshold_table(table) if report.has_classifier else (),
        coverage=_coverage(bundle.classifier, table),
        slices=report.slices,
        mistakes=tuple(_mistakes(bundle, version, report)),
        synthetic=sum(item.record.synthetic for item in version.dataset.only(Split(report.split))),
    )


def model_card(bundle: ModelBundle, report: EvaluationReport, decision: GateDecision | None = None) -> str:
    """A model card in Markdown: what the bundle is, what it was trained and measured on, what it must not be used for.

    Source: Mitchell et al. 2019, Model Cards for Model Reporting.
    """
    slices = sorted({part.attribute for part in report.slices if part.evidence})
    return _template("model_card.md").render(
        disclaimer=DISCLAIMER, bundle=bundle, report=report, decision=decision, slices=slices
    )


def _template(name: str) -> jinja2.Template:
    folder = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    environment = jinja2.Environment(
        loader=folder, autoescape=name.endswith(".html"), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = lambda value: "–" if value is None or math.isnan(value) else f"{value:.3f}"
    return environment.get_template(name)


def _charts(table: CaseTable, champion: CaseTable | None, report: EvaluationReport) -> Iterator[Chart]:
    both = [("this model", table)] + ([("champion", champion)] if champion is not None else [])
    if report.has_detector:
        found = [(name, curves.precision_recall(cases)) for name, cases in both]
        yield Chart("Detection: precision and recall at IoU 0.5", charts.line_chart(found, "recall", "precision"))
        found = [(name, curves.froc(cases)) for name, cases in both]
        drawn = charts.line_chart(found, "false alarms per image", "sensitivity", x_most=4.0)
        yield Chart("Detection: FROC at IoU 0.5", drawn)
    if report.has_classifier:
        yield Chart("Confusion matrix", charts.matrix_chart(table.confusion(table.ones), table.classes))
        bins = tuple((one.certainty, one.right) for one in curves.reliability(table))
        drawn = charts.line_chart([("this model", bins)], "certainty", "share right", diagonal=True, dots=True)
        yield Chart("Reliability", drawn)
        found = [(name, curves.abstention(cases)) for name, cases in both]
        yield Chart("Abstention", charts.line_chart(found, "share answered", "accuracy of the answers"))


def _coverage(spec: ClassifierSpec | None, table: CaseTable) -> curves.Coverage | None:
    if spec is None or spec.conformal_threshold is None:
        return None
    return curves.coverage(table, spec.conformal_threshold)


def _mistakes(bundle: ModelBundle, version: DatasetVersion, report: EvaluationReport) -> Iterator[Mistake]:
    """The lesions whose true class got the least, worst first, malignant ones before benign ones."""
    spec = bundle.classifier
    if spec is None:
        return
    items = {item.record.image_id: item for item in version.dataset.items}
    pipeline = Pipeline.open(bundle)
    for image_id in _worst_images(report):
        item = items.get(image_id)
        if item is not None:
            yield from _worst_of(pipeline, version, item, spec)


def _worst_images(report: EvaluationReport) -> list[str]:
    wrong = [
        (not reading.malignant, reading.probabilities[reading.truth], case.image_id)
        for case in report.cases
        for reading in case.readings
        if max(reading.probabilities) > reading.probabilities[reading.truth]
    ]
    return list(dict.fromkeys(image_id for _, _, image_id in sorted(wrong)))[:_MISTAKES]


def _worst_of(
    pipeline: Pipeline, version: DatasetVersion, item: DatasetItem, spec: ClassifierSpec
) -> Iterator[Mistake]:
    image = datasets.read_decoded(version, item)
    lesions = item.truth.lesions
    for lesion, reading in zip(lesions, pipeline.read([(image, one.box) for one in lesions]), strict=True):
        index = datasets.class_index(lesion, spec.target, version.dataset.taxonomy)
        if reading is None or index is None or spec.classes[index] == reading.top:
            continue
        shares, truth = dict(reading.probabilities), spec.classes[index]
        words = f"{truth} ({shares[truth]:.0%}) read as {reading.top} ({shares[reading.top]:.0%})"
        crop = _crop(image, lesion, spec)
        yield Mistake(item.record.image_id, words, _address(crop), _address(_heated(crop, reading)))


def _crop(image: DecodedImage, lesion: Lesion, spec: ClassifierSpec) -> Pixels:
    return preprocessing.crop_lesion(image.pixels, image.to_pixels(lesion.box), spec.crop_padding, _PICTURE)


def _heated(crop: Pixels, reading: Reading) -> Pixels:
    """The crop under the reading's class activation map: red where the answer comes from."""
    if reading.cam is None:
        return crop
    small = Image.fromarray((255 * np.clip(reading.cam, 0, 1)).astype(np.uint8))
    heat = np.asarray(small.resize((_PICTURE, _PICTURE), Image.Resampling.BICUBIC), dtype=np.float32)[..., None] / 255
    red = np.array([230, 30, 40], dtype=np.float32)
    return np.asarray(crop * (1 - 0.6 * heat) + red * 0.6 * heat, dtype=np.uint8)


def _address(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
