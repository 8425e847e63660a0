"""What retraining costs: one part against both, a cached epoch against the first, evaluation against bare prediction.

Prints a JSON object a line: `{"bench", "ours", "peer", "limit", "unit", "note"}`. Pictures are drawn, models start from
scratch, everything runs on the processor in one process. The stages keep the recipe's own ratio of epochs. Training is
given in processor seconds, so that a busy machine measures what a quiet one does; evaluation by the clock.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters import taxonomy
from converters.dataset import Dataset, DatasetItem, DatasetVersion, Split, freeze
from converters.splits import SplitPolicy, split
from converters.taxonomy import Target
from dermloop.demo import DemoOptions, render
from ml_backend.bundle import ModelBundle, set_champion
from ml_backend.images import DecodedImage
from ml_backend.pipeline import ImagePrediction, Pipeline
from training import classifier, config, datasets, detector, evaluation, registry, retrain, runs
from training.config import TrainingConfig

PICTURES = 96
SIDE = 768
SHARE = 6
"""Epochs are the recipe's, divided by this."""
EVALUATED = 1000


def main() -> None:
    """Runs every line of the bench."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        version = _version(folder, PICTURES, Split.TEST)
        settings = _settings()
        _train(version, folder / "warm", replace(settings, **_one_epoch(settings)), None)
        both = _processor(lambda: _train(version, folder, settings, None))
        for stage in ("detector", "classifier"):
            alone = _processor(lambda: _train(version, folder, settings, stage))  # noqa: B023 (called at once)
            note = f"processor seconds of the {stage} alone on cached data; peer: both parts from nothing"
            _line(f"retrain.one_stage.{stage}", alone, both, both / 2, "s", note)
        _cached_epoch(version, folder, settings)
        _evaluation(folder)


def _version(folder: Path, count: int, last: Split) -> DatasetVersion:
    """So many pictures, split; beyond PICTURES the same pixels come again in files of their own."""
    sources, items = {}, []
    images = folder / f"images-{count}"
    images.mkdir()
    drawn = [render(1, number, DemoOptions(size=SIDE)) for number in range(min(count, PICTURES))]
    for number in range(count):
        picture = drawn[number % len(drawn)]
        content = _marked(picture.content, number // len(drawn))
        record = replace(picture.record, image_id=hashlib.sha256(content).hexdigest())
        path = images / f"{record.image_id}.jpg"
        path.write_bytes(content)
        sources[record.image_id] = path
        truth = replace(picture.truth, image_id=record.image_id)
        items.append(DatasetItem(record, truth, last if count > PICTURES else None))
    whole = Dataset(taxonomy.read(), tuple(items))
    if count <= PICTURES:
        whole = split(whole, SplitPolicy())
    return freeze(whole, sources, folder / "datasets", {"of": "bench"})


def _marked(content: bytes, number: int) -> bytes:
    """The same JPEG picture with a comment: another file."""
    return content[:2] + b"\xff\xfe\x00\x06" + number.to_bytes(4, "big") + content[2:] if number else content


def _settings() -> TrainingConfig:
    first = config.recipe("first")
    return replace(
        first,
        detector=replace(first.detector, epochs=first.detector.epochs // SHARE, weights="scratch"),
        classifier=replace(first.classifier, epochs=max(first.classifier.epochs // SHARE, 1), weights="scratch"),
    )


def _one_epoch(settings: TrainingConfig) -> dict[str, Any]:
    return {
        "detector": replace(settings.detector, epochs=1),
        "classifier": replace(settings.classifier, epochs=1),
    }


def _train(version: DatasetVersion, folder: Path, settings: TrainingConfig, only: Any) -> None:
    models = folder / "models"
    parts = retrain.train(version, models=models, runs=folder / "runs", config=settings, only=only)
    bundle = retrain.pair(parts, version, models, settings, registry.champion(models))
    set_champion(models, bundle.version)


def _cached_epoch(version: DatasetVersion, folder: Path, settings: TrainingConfig) -> None:
    """Processor seconds to the end of the first epoch, of a first run on a version and of a second one."""
    cache, both = folder / "fresh", []
    settings = replace(settings, **_one_epoch(settings))
    for name in ("first", "second"):
        parts = []
        for stage in (detector, classifier):
            ended: list[float] = []

            def note(part: str, done: int, total: int, text: str) -> None:
                ended.extend([time.process_time()] if done == 1 else [])  # noqa: B023 (called before the next round)

            run = runs.start(folder / name, "epoch", version.digest, settings, note)
            began = time.process_time()
            if stage is detector:
                detector.train(version, run, cache, settings.detector)
            else:
                classifier.fit(version, run, cache, settings.classifier)
            parts.append(ended[0] - began)
        both.append(parts)
    for number, stage_name in enumerate(("detector", "classifier")):
        first, second = both[0][number], both[1][number]
        note_text = f"processor seconds until the {stage_name}'s first epoch ends, second run; peer: first run"
        _line(f"retrain.cached_epoch.{stage_name}", second, first, first / 1.5, "s", note_text)


def _evaluation(folder: Path) -> None:
    """Seconds for 1,000 images: the cases of a report, against the served batch path alone and over as many crops."""
    bundle = registry.champion(folder / "models")
    if bundle is None:
        raise SystemExit("no champion to evaluate")
    version = _version(folder, EVALUATED, Split.TEST)
    measured = _Cost.of(lambda: evaluation.cases_of(bundle, version, Split.TEST))
    served, more, crops = _served(bundle, version)
    both = served + more
    note = (
        f"processor seconds: {measured.busy:.1f} against {both.busy:.1f}, {served.busy:.1f} of them for what serving"
        f" reads; crops read: {sum(crops)} against {crops[0]} served, {crops[1]} more of true boxes in the limit;"
        " peer: the served batch path alone"
    )
    _line("retrain.evaluate_1000", measured.wall, served.wall, both.wall, "s", note)


@dataclass(frozen=True, slots=True)
class _Cost:
    """Seconds on the clock, and of all processors."""

    wall: float = 0.0
    busy: float = 0.0

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(self.wall + other.wall, self.busy + other.busy)

    @classmethod
    def of(cls, work: Callable[[], object]) -> _Cost:
        """What some work takes."""
        began, busy = time.perf_counter(), time.process_time()
        work()
        return cls(time.perf_counter() - began, time.process_time() - busy)


def _served(bundle: ModelBundle, version: DatasetVersion) -> tuple[_Cost, _Cost, tuple[int, int]]:
    """What decoding and the served batch path take, what the other crops take that evaluation reads, and both numbers.

    Evaluation reads each lesion at its true box, and once more where a malignant one was found; serving what it finds.
    """
    pipeline, items = Pipeline.open(bundle), version.dataset.only(Split.TEST)
    served, more, crops, others = _Cost(), _Cost(), 0, 0
    for start in range(0, len(items), 32):
        part, answers, images = items[start : start + 32], list[ImagePrediction](), list[DecodedImage]()

        def serve() -> None:
            images.extend(datasets.read_decoded(version, item, bundle) for item in part)  # noqa: B023 (called at once)
            answers.extend(pipeline.predict(images))  # noqa: B023 (called at once)

        served += _Cost.of(serve)
        found = sum(len(answer.readings) for answer in answers)
        true = [(image, lesion.box) for image, item in zip(images, part, strict=True) for lesion in item.truth.lesions]
        again = sum(_twice(item, answer, bundle) for item, answer in zip(part, answers, strict=True))
        missing = (true * 2)[: max(len(true) + again - found, 0)]
        more += _Cost.of(lambda: pipeline.read(missing))  # noqa: B023 (called at once)
        crops, others = crops + found, others + len(missing)
    return served, more, (crops, others)


def _twice(item: DatasetItem, answer: ImagePrediction, bundle: ModelBundle) -> int:
    """How many malignant lesions of an image were found."""
    malignant = [
        lesion.box
        for lesion in item.truth.lesions
        if datasets.class_index(lesion, Target.MALIGNANCY, bundle.taxonomy) == 1
    ]
    return sum(any(box.iou(one.box) >= 0.5 for one in answer.lesions) for box in malignant)


def _processor(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _line(bench: str, ours: float, peer: float | None, limit: float | None, unit: str, note: str) -> None:
    numbers = {"ours": ours, "peer": peer, "limit": limit}
    rounded = {name: None if value is None else round(value, 3) for name, value in numbers.items()}
    print(json.dumps({"bench": bench, **rounded, "unit": unit, "note": note}), flush=True)


if __name__ == "__main__":
    main()
