"""What retraining costs: one part against both, a cached epoch against the first, evaluation against bare prediction.

`python -m benchmarks.retrain [--images FOLDER] [--work FOLDER] [LINE…]` prints a JSON object a line: `{"bench", "ours",
"peer", "limit", "unit", "note"}`. FOLDER holds pictures and their `metadata.csv`; without it they are drawn. What is
trained on is enlarged to a telephone's 12 megapixels. Everything runs on the processor in one process, after a short
training that loads the libraries. Training is given in processor seconds, so that a busy machine measures what a quiet
one does; evaluation by the clock.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

from photographs import photographs, pictures_to_evaluate

from converters import dataset
from converters.dataset import DatasetItem, DatasetVersion, Split
from converters.taxonomy import Target
from ml_backend.bundle import ModelBundle, set_champion
from ml_backend.images import DecodedImage
from ml_backend.pipeline import ImagePrediction, Pipeline
from training import augment, classifier, config, datasets, detector, evaluation, networks, registry, retrain, runs
from training.config import TrainingConfig
from training.retrain import Only

PICTURES, SIDE = 96, 3464
EVALUATED = 1000
TIMES = 3
SHARE = 2
"""A round has the recipe's epochs, divided by this."""
STAGES: tuple[Only, Only] = ("detector", "classifier")
ENOUGH = 24
"""Epochs after which a detector finds most lesions, so that serving has as much to read as evaluation."""
LINES = ("one_stage", "cached_epoch", "evaluate_1000")


def main() -> None:
    """Runs the lines that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", nargs="*", default=LINES, help=f"some of {', '.join(LINES)}")
    parser.add_argument("--images", type=Path, help="a folder of pictures with metadata.csv")
    parser.add_argument("--work", type=Path, help="keep the pictures here for the next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, kept = Path(name), options.work or Path(name)
        version = _made(kept / "train", partial(photographs, options.images, PICTURES, SIDE))
        _champion(version, folder, ENOUGH if "evaluate_1000" in options.lines else 1)
        if "one_stage" in options.lines:
            _one_stage(version, folder)
        if "cached_epoch" in options.lines:
            _cached_epoch(version, folder)
        if "evaluate_1000" in options.lines:
            _evaluation(folder, _made(kept / "test", partial(pictures_to_evaluate, options.images, EVALUATED)))


def _made(folder: Path, make: Callable[[Path], DatasetVersion]) -> DatasetVersion:
    """The version under a folder, made where there is none yet."""
    known = next(iter((folder / "datasets").glob("*/version.json")), None)
    return dataset.load(known.parent) if known else make(folder / "images")


def _champion(version: DatasetVersion, folder: Path, epochs: int) -> None:
    """A bundle to start from; what it costs to go on from it does not depend on how good it is, what it serves does."""
    first = config.recipe("loop")
    settings = replace(
        first,
        detector=replace(first.detector, epochs=epochs, learning_rate=0.002, weights="scratch"),
        classifier=replace(first.classifier, epochs=1, weights="scratch"),
    )
    models = folder / "models"
    parts = retrain.train(version, models=models, runs=folder / "runs", config=settings)
    bundle = retrain.pair(parts, version, models, settings, None)
    retrain.evaluate(bundle, version, settings)
    set_champion(models, bundle.version)


def _one_stage(version: DatasetVersion, folder: Path) -> None:
    """One round of the loop from the champion to the gate's verdict: both parts, and each alone on the same version."""
    _uncached(folder)
    both, again, *alone = (_round(version, folder, only) for only in (None, None, *STAGES))
    for stage, ours in zip(STAGES, alone, strict=True):
        note = (
            f"processor seconds of half the recipe loop, {len(version.dataset.items)} photographs, for the {stage}"
            f" alone, {1 - ours / both:.0%} less than peer: both parts on a version that is new;"
            f" {1 - ours / again:.0%} less than both on one whose crops are cached, {again:.1f} s"
        )
        _line(f"retrain.one_stage.{stage}", ours, both, both / 2, "s", note)


def _loop() -> TrainingConfig:
    """The recipe of a round, in its own ratio of epochs but shorter."""
    loop = config.recipe("loop")
    return replace(
        loop,
        detector=replace(loop.detector, epochs=loop.detector.epochs // SHARE),
        classifier=replace(loop.classifier, epochs=loop.classifier.epochs // SHARE),
    )


def _round(version: DatasetVersion, folder: Path, only: Only | None) -> float:
    """Processor seconds of a retraining, promotion left out so that all start from the same champion."""
    settings = _loop()
    champion = registry.champion(folder / "models")
    assert champion is not None
    began = time.process_time()
    marks: list[str] = []

    def note(stage: retrain.StageReport) -> None:
        marks.append(f"{stage.stage} {stage.seconds:.1f} s")

    places = folder / "models", folder / "runs"
    retrain.retrain(version, models=places[0], runs=places[1], config=settings, only=only, on_stage=note)
    spent = time.process_time() - began
    print(
        f"a round of {only or 'both parts'}: {spent:.1f} processor seconds ({', '.join(marks)})",
        file=sys.stderr,
        flush=True,
    )
    set_champion(folder / "models", champion.version)
    return spent


def _uncached(folder: Path) -> None:
    shutil.rmtree(folder / "runs" / "cache")


def _cached_epoch(version: DatasetVersion, folder: Path) -> None:
    """An epoch from the cache; against the same with decoding and cutting its photographs, as the first run does."""
    settings = _loop()
    for stage in STAGES:
        cache = folder / f"fresh-{stage}"
        epoch = _epochs(version, folder, stage, cache, settings)
        known = _preparing(version, stage, cache, settings)
        fresh = [_preparing(version, stage, folder / f"{stage}-{number}", settings) for number in range(TIMES)]
        note = f"processor seconds of an epoch of the {stage} in a second run"
        _cached_line(stage, epoch + known, epoch + median(fresh), median(fresh), note, version)
    cache = folder / "fresh-classifier"
    settings = _frozen(folder)
    first, second = (_epochs(version, folder, "classifier", cache, settings) for _ in range(2))
    peer, note = (
        first + median(fresh),
        "processor seconds of an epoch of VGG16 while its backbone is frozen, second run",
    )
    _cached_line("classifier_frozen", second + known, peer, median(fresh), note, version)


def _cached_line(name: str, ours: float, peer: float, fresh: float, note: str, version: DatasetVersion) -> None:
    count = len(version.dataset.items)
    why = f"peer: the first run, with {fresh:.1f} for decoding and cutting {count} photographs of 12 megapixels"
    _line(f"retrain.cached_epoch.{name}", ours, peer, peer / 1.5, "s", f"{note}; {why}; medians of {TIMES}")


def _preparing(version: DatasetVersion, stage: Only, cache: Path, settings: TrainingConfig) -> float:
    """Processor seconds until what a stage learns from is at hand."""
    began = time.process_time()
    if stage == "detector":
        side, weight = settings.detector.image_size, settings.detector.agreement_weight
        datasets.yolo_folder(version, cache, side, outlines=True, agreement_weight=weight)
    else:
        chosen = settings.classifier
        wide, margin = augment.wide_size(chosen)
        for split, size, padding in (
            (Split.TRAIN, wide, margin),
            (Split.VAL, chosen.image_size, chosen.crop_padding),
        ):
            datasets.crops(version, split, chosen.target, size=size, padding=padding, cache=cache)
    return time.process_time() - began


def _frozen(folder: Path) -> TrainingConfig:
    """A training that begins with a frozen backbone; what its weights are makes no epoch longer."""
    path, loop = folder / "backbone.weights.h5", _loop()
    side = loop.classifier.image_size
    keras = networks.keras_library()
    keras.applications.VGG16(include_top=False, weights=None, input_shape=(side, side, 3)).save_weights(path)
    return replace(loop, classifier=replace(loop.classifier, weights=str(path), frozen_epochs=1 + TIMES, epochs=1))


def _epochs(version: DatasetVersion, folder: Path, stage: Only, cache: Path, settings: TrainingConfig) -> float:
    """Processor seconds of an epoch once the graph is traced: the median of those after the first."""
    ended: list[float] = []

    def note(part: str, done: int, total: int, text: str) -> None:
        ended.extend([time.process_time()] if done == len(ended) + 1 else [])

    run = runs.start(folder / "epochs", "epoch", version.digest, settings, note)
    count = 1 + TIMES
    if stage == "detector":
        detector.train(version, run, cache, replace(settings.detector, epochs=count, weights="scratch"))
    elif settings.classifier.frozen_epochs == count:
        classifier.fit(version, run, cache, settings.classifier)
    else:
        classifier.fit(version, run, cache, replace(settings.classifier, epochs=count, weights="scratch"))
    return median(later - earlier for earlier, later in pairwise(ended[:count]))


def _evaluation(folder: Path, version: DatasetVersion) -> None:
    """Seconds for 1,000 images: the cases of a report, against the served batch path alone and over as many crops."""
    bundle = registry.champion(folder / "models")
    if bundle is None:
        raise SystemExit("no champion to evaluate")
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


def _line(bench: str, ours: float, peer: float | None, limit: float | None, unit: str, note: str) -> None:
    numbers = {"ours": ours, "peer": peer, "limit": limit}
    rounded = {name: None if value is None else round(value, 3) for name, value in numbers.items()}
    print(json.dumps({"bench": bench, **rounded, "unit": unit, "note": note}), flush=True)


if __name__ == "__main__":
    main()
