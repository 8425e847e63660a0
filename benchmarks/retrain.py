"""What retraining costs: one part against both, a cached run against the first, evaluation against bare prediction.

Prints a JSON object a line: `{"bench", "ours", "peer", "limit", "unit", "note"}`. Pictures are drawn, models start from
scratch, everything runs on the processor in one process; `PICTURES` and `EPOCHS` are small so that it ends in minutes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from converters import taxonomy
from converters.dataset import Dataset, DatasetItem, DatasetVersion, Split, freeze
from converters.splits import SplitPolicy, split
from dermloop.demo import DemoOptions, render
from ml_backend.bundle import set_champion
from ml_backend.pipeline import Pipeline
from training import config, datasets, evaluation, registry, retrain
from training.config import TrainingConfig

PICTURES = 96
EPOCHS = 3
EVALUATED = 1000


def main() -> None:
    """Runs every line of the bench."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        version = _version(folder)
        settings = _settings()
        both = _timed(lambda: _train(version, folder, settings, None))
        champion = registry.champion(folder / "models")
        if champion is None:
            raise SystemExit("no champion after the first training")
        detector = _timed(lambda: _train(version, folder, settings, "detector"))
        classifier = _timed(lambda: _train(version, folder, settings, "classifier"))
        _line("retrain.one_stage", classifier, both, both / 2, "s", "the classifier alone; peer: both parts")
        _line("retrain.one_stage_detector", detector, both, None, "s", "the detector alone; peer: both parts")
        first, again = _caches(version, folder, settings)
        _line("retrain.cached_data", again, first, first / 1.5, "s", "data of one run, cached; peer: the first run")
        _evaluation(version, folder)


def _version(folder: Path) -> DatasetVersion:
    sources, items = {}, []
    (folder / "images").mkdir()
    for number in range(PICTURES):
        picture = render(1, number, DemoOptions(size=384))
        path = folder / "images" / f"{picture.record.image_id}.jpg"
        path.write_bytes(picture.content)
        sources[picture.record.image_id] = path
        items.append(DatasetItem(picture.record, picture.truth))
    return freeze(
        split(Dataset(taxonomy.read(), tuple(items)), SplitPolicy()), sources, folder / "datasets", {"of": "bench"}
    )


def _settings() -> TrainingConfig:
    first = config.recipe("first")
    return replace(
        first,
        detector=replace(first.detector, epochs=EPOCHS, weights="scratch"),
        classifier=replace(first.classifier, epochs=EPOCHS, weights="scratch"),
    )


def _train(version: DatasetVersion, folder: Path, settings: TrainingConfig, only: retrain.Only | None) -> None:
    models = folder / "models"
    parts = retrain.train(version, models=models, runs=folder / "runs", config=settings, only=only)
    bundle = retrain.pair(parts, version, models, settings, registry.champion(models))
    set_champion(models, bundle.version)


def _caches(version: DatasetVersion, folder: Path, settings: TrainingConfig) -> tuple[float, float]:
    """Seconds to decode, letterbox and crop a version the first time, and to take the same from the cache."""
    cache = folder / "fresh"
    target = settings.classifier.target

    def prepare() -> None:
        datasets.yolo_folder(version, cache, settings.detector.image_size)
        for part in (Split.TRAIN, Split.VAL):
            datasets.crops(version, part, target, size=settings.classifier.image_size, padding=0.3, cache=cache)

    first = _timed(prepare)
    again = _timed(prepare)
    shutil.rmtree(cache)
    return first, again


def _evaluation(version: DatasetVersion, folder: Path) -> None:
    """Seconds for 1,000 images, scaled from the version's own: cases of a report, and the served batch path alone."""
    bundle = registry.champion(folder / "models")
    if bundle is None:
        raise SystemExit("no champion to evaluate")
    items = version.dataset.only(Split.TRAIN)
    ours = _timed(lambda: evaluation.cases_of(bundle, version, Split.TRAIN))
    pipeline = Pipeline.open(bundle)

    def served() -> None:
        for start in range(0, len(items), 32):
            pipeline.predict([datasets.read_decoded(version, item) for item in items[start : start + 32]])

    limit = _timed(served)
    scale = EVALUATED / len(items)
    note = f"scaled from {len(items)} images; limit: decoding and the served batch path"
    _line("retrain.evaluate_1000", ours * scale, None, limit * scale, "s", note)


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _line(bench: str, ours: float, peer: float | None, limit: float | None, unit: str, note: str) -> None:
    numbers = {"ours": ours, "peer": peer, "limit": limit}
    rounded = {name: None if value is None else round(value, 3) for name, value in numbers.items()}
    print(json.dumps({"bench": bench, **rounded, "unit": unit, "note": note}), flush=True)


if __name__ == "__main__":
    main()
