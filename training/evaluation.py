"""Measures an exported bundle through the serving pipeline: what annotators would see, against the frozen truth."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from converters.annotation import ImageRecord, Lesion
from converters.dataset import DatasetItem, DatasetVersion, Split
from converters.geometry import PixelBox, Polygon
from converters.taxonomy import Target
from ml_backend.bundle import ClassifierSpec, DetectorTask, ModelBundle
from ml_backend.images import DecodedImage
from ml_backend.pipeline import Detection, Pipeline
from ml_backend.reading import Reading
from training import datasets, metrics, report
from training.cases import CaseTable, ImageCase, LesionCase, Part
from training.config import EvaluationConfig
from training.errors import DataError
from training.outlines import Overlap, overlap
from training.report import EvaluationReport
from training.runs import Progress, silent

_ALL_SCORES = 0.001
_ALL_DETECTIONS = 100
_CHUNK = 32
_TIMED = 12
_FOUND = 0.5
_AGE_BANDS = ((0, 30), (30, 50), (50, 70), (70, 200))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the pipeline says of one image: detections best first, the reading of each true box, and of what it found.

    `served` has the reading of the served detection that found each malignant lesion; None for all others. `outlines`
    belong to those of `boxes` that are served, where the detector draws masks.
    """

    boxes: tuple[PixelBox, ...]
    scores: tuple[float, ...]
    readings: tuple[Reading | None, ...]
    served: tuple[Reading | None, ...]
    outlines: tuple[Polygon | None, ...] = ()


def evaluate(
    bundle: ModelBundle,
    version: DatasetVersion,
    split: Split,
    config: EvaluationConfig,
    progress: Progress = silent,
    cases: tuple[ImageCase, ...] | None = None,
) -> EvaluationReport:
    """The report of a bundle on one split of a version: metrics, intervals, slices and the cases behind them.

    Detections are taken down to a score of 0.001 for the precision-recall curve; those over the bundle's threshold are
    the served ones. Lesions are read from their true boxes, so that both parts are measured on their own. `cases` are
    what `cases_of` gave, where the bundle was asked elsewhere.
    """
    found = cases_of(bundle, version, split, progress) if cases is None else cases
    classes = bundle.classifier.classes if bundle.classifier else ()
    table = CaseTable(found, classes)
    parts = _parts(bundle)
    items = tuple(datasets.gradable(version.dataset.only(split)))
    return EvaluationReport(
        bundle=bundle.version,
        dataset=version.digest,
        split=split.value,
        split_digest=version.split_digest(split),
        classes=classes,
        metrics=report.summarise(table, config, parts),
        cases=found,
        slices=report.summarise_slices(table, config, parts),
        ms_per_image=_latency(bundle, version, items[:_TIMED]),
        skipped=len(version.dataset.only(split)) - len(items),
        has_detector=bundle.detector is not None,
        has_classifier=bundle.classifier is not None,
    )


def cases_of(
    bundle: ModelBundle, version: DatasetVersion, split: Split, progress: Progress = silent
) -> tuple[ImageCase, ...]:
    """What a bundle answers on each gradable image of a split; raises DataError for a split without any."""
    items = tuple(datasets.gradable(version.dataset.only(split)))
    if not items:
        raise DataError(f"{split.value} split of {version.digest[:12]}", 0, "gradable images", "Approve more images.")
    found: list[ImageCase] = []
    for item, answer in zip(items, answers_of(bundle, version, items), strict=True):
        found.append(_case(item, answer, bundle))
        if len(found) % _CHUNK == 0 or len(found) == len(items):
            progress("evaluate", len(found), len(items), f"{split.value} images")
    return tuple(found)


def answers_of(bundle: ModelBundle, version: DatasetVersion, items: Sequence[DatasetItem]) -> Iterator[Answer]:
    """What the serving pipeline says of each item of a version, decoded as serving decodes it."""
    pipeline = Pipeline.open(bundle)
    parts = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]

    def decoded(part: Sequence[DatasetItem]) -> list[DecodedImage]:
        return [datasets.read_decoded(version, item, bundle) for item in part]

    with ThreadPoolExecutor(1) as ahead:  # pictures are unfolded while the graphs are busy with those before
        waiting = ahead.submit(decoded, parts[0])
        for number, part in enumerate(parts):
            images = waiting.result()
            if number + 1 < len(parts):
                waiting = ahead.submit(decoded, parts[number + 1])
            yield from _ask(pipeline, images, part)


def best_threshold(cases: Iterable[ImageCase]) -> float | None:
    """The score threshold of the best F1 at IoU 0.5, between 0.05 and 0.6; None where nothing was ever hit."""
    table = CaseTable(tuple(cases), ())
    if not table.scores.size or not table.hits[0].any():
        return None
    order = np.argsort(-table.scores, kind="stable")
    hits, scores = np.cumsum(table.hits[0][order]), table.scores[order]
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + table.lesions.sum())
    best = float(scores[int(f1.argmax())])
    return float(np.clip(np.floor(best * 95) / 100, 0.05, 0.6))


def slices_of(record: ImageRecord) -> tuple[tuple[str, str], ...]:
    """The slices an image belongs to, by what is known of its subject; unknown attributes give none."""
    found = {
        "skin_type": None if record.skin_type is None else str(record.skin_type),
        "sex": record.sex,
        "site": record.site,
        "device": record.device,
        "source": record.source,
        "age": None if record.age is None else _age_band(record.age),
    }
    return tuple((name, value) for name, value in sorted(found.items()) if value)


def _ask(pipeline: Pipeline, images: Sequence[DecodedImage], items: Sequence[DatasetItem]) -> Iterator[Answer]:
    """The answers of a chunk: one pass of the detector, and the classifier over the crops that count."""
    found = pipeline.detections(images, _ALL_SCORES, _ALL_DETECTIONS)
    seen = [_finders(item, many, pipeline.bundle) for item, many in zip(items, found, strict=True)]
    true = [[lesion.box for lesion in item.truth.lesions] for item in items]
    wanted = [(image, box) for image, many in zip(images, true, strict=True) for box in many]
    served = [(image, box) for image, many in zip(images, seen, strict=True) for box in many if box is not None]
    of_true, of_served = iter(pipeline.read(wanted)), iter(pipeline.read(served))
    for boxes, drawn, many in zip(true, found, seen, strict=True):
        yield Answer(
            boxes=tuple(one.box for one in drawn),
            scores=tuple(one.score for one in drawn),
            readings=tuple(next(of_true) for _ in boxes),
            served=tuple(None if box is None else next(of_served) for box in many),
            outlines=tuple(one.shape for one in drawn),
        )


def _finders(item: DatasetItem, found: Sequence[Detection], bundle: ModelBundle) -> list[PixelBox | None]:
    """The served detection that overlaps each malignant lesion most, where it does so by half; None for all others.

    How a benign lesion's own detection reads tells nothing: no figure counts it.
    """
    served = _served([one.box for one in found], [one.score for one in found], bundle)
    best = [
        max(served, key=lesion.box.iou, default=None) if _is_malignant(lesion, bundle) else None
        for lesion in item.truth.lesions
    ]
    return [
        box if box is not None and lesion.box.iou(box) >= _FOUND else None
        for lesion, box in zip(item.truth.lesions, best, strict=True)
    ]


def _is_malignant(lesion: Lesion, bundle: ModelBundle) -> bool:
    return datasets.class_index(lesion, Target.MALIGNANCY, bundle.taxonomy) == 1


def _served(boxes: Sequence[PixelBox], scores: Sequence[float], bundle: ModelBundle) -> list[PixelBox]:
    spec = bundle.detector
    if spec is None:
        return []
    chosen = [box for box, score in zip(boxes, scores, strict=True) if score >= spec.score_threshold]
    return chosen[: spec.max_detections]


def _case(item: DatasetItem, answer: Answer, bundle: ModelBundle) -> ImageCase:
    truths = [lesion.box for lesion in item.truth.lesions]
    hits = metrics.match(truths, answer.boxes)
    served = _served(answer.boxes, answer.scores, bundle)
    found = [any(truth.iou(box) >= _FOUND for box in served) for truth in truths]
    pairs = zip(item.truth.lesions, answer.readings, answer.served, strict=True)
    readings = (_lesion_case(lesion, reading, seen, bundle) for lesion, reading, seen in pairs)
    record = item.record
    drawn = _overlap(item, answer, len(served), bundle)
    return ImageCase(
        image_id=record.image_id,
        group=record.patient_id or record.lesion_id or record.image_id,
        lesions=len(truths),
        scores=answer.scores,
        hits=tuple(tuple(bool(flag) for flag in row) for row in hits),
        found=tuple(found),
        false_alarms=sum(all(truth.iou(box) < _FOUND for truth in truths) for box in served),
        readings=tuple(reading for reading in readings if reading is not None),
        slices=slices_of(record),
        dice=drawn.dice if drawn else math.nan,
        outline_iou=drawn.iou if drawn else math.nan,
    )


def _overlap(item: DatasetItem, answer: Answer, served: int, bundle: ModelBundle) -> Overlap | None:
    """Of the outlines that are served; None for a detector of boxes."""
    if bundle.detector is None or bundle.detector.task is not DetectorTask.SEGMENT:
        return None
    return overlap(item.truth.lesions, answer.outlines[:served], item.record.size)


def _lesion_case(
    lesion: Lesion, reading: Reading | None, served: Reading | None, bundle: ModelBundle
) -> LesionCase | None:
    spec = bundle.classifier
    if spec is None or reading is None:
        return None
    truth = datasets.class_index(lesion, spec.target, bundle.taxonomy)
    malignant = datasets.class_index(lesion, Target.MALIGNANCY, bundle.taxonomy)
    if truth is None or malignant is None:
        return None
    return LesionCase(
        diagnosis=bundle.taxonomy.resolve(lesion.diagnosis).code if lesion.diagnosis else "",
        truth=truth,
        probabilities=tuple(share for _, share in reading.probabilities),
        malignant=bool(malignant),
        malignant_share=reading.malignant,
        flagged=_flags(reading, spec),
        served=served is not None and _flags(served, spec),
    )


def _flags(reading: Reading, spec: ClassifierSpec) -> bool:
    point = spec.operating_point if spec.operating_point is not None else 0.5
    return reading.malignant >= point


def _parts(bundle: ModelBundle) -> frozenset[Part]:
    present = {Part.DETECTOR: bundle.detector, Part.CLASSIFIER: bundle.classifier}
    found = {part for part, spec in present.items() if spec is not None}
    return frozenset(found | ({Part.PIPELINE} if len(found) == len(present) else set()))


def _latency(bundle: ModelBundle, version: DatasetVersion, items: Sequence[DatasetItem]) -> float:
    """Median milliseconds of the pipeline as served, one decoded image at a time, after a first one to warm up."""
    pipeline = Pipeline.open(bundle)
    times = []
    for item in items:
        image = datasets.read_decoded(version, item, bundle)
        begun = time.perf_counter()
        pipeline.predict([image])
        times.append(1000 * (time.perf_counter() - begun))
    return float(np.median(times[1:] or times))


def _age_band(age: float) -> str:
    return next(f"{low}-{high}" if high < 200 else f"{low}+" for low, high in _AGE_BANDS if low <= age < high)
