"""The first champion of a new home: trained on synthetic pictures before anybody has labelled anything.

It runs in a process of its own, which gives the memory of the training libraries back, and is kept in a cache, so that
another home on the same machine starts at once.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from converters import dataset as datasets
from converters import taxonomy
from converters.dataset import Dataset, DatasetItem, DatasetVersion
from converters.splits import SplitPolicy, split
from converters.whole import whole_folder
from dermloop.demo import DemoImage, DemoOptions, render
from dermloop.errors import StartError
from dermloop.home import Home, cache_folder
from dermloop.orphans import end_with_parent
from dermloop.stages import StageLine
from ml_backend.bundle import champion_version

if TYPE_CHECKING:
    from training.retrain import StageReport

SEED, COUNT, OPTIONS = 1000, 150, DemoOptions(size=256)
"""The series that the first model learns from; another one than the pictures that people get to label."""

_WORK = "first-bundle"
_PROGRESS = "progress"
_NAME = "bundle.txt"
_LINEAGE_RUNS = ("detector_run", "classifier_run")


def ensure_champion(
    home: Home,
    say: Callable[[str], None],
    train: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> str | None:
    """The version of the champion; trains a first one where there is none, or answers None where `train` is false.

    `say` is told each stage, `progress` so many epochs of so many. Raises StartError where the training fails.
    """
    if (version := champion_version(home.models)) is not None or not train:
        return version
    say("Making a first model from synthetic images (once; at most five minutes, less from the cache)")
    command = (sys.executable, "-m", "dermloop.first_bundle", "--home", str(home.root))
    log = home.logs / f"{_WORK}.log"
    with log.open("ab") as stream, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream) as run:
        try:
            for raw in run.stdout or ():
                _pass_on(StageLine.decode(raw), say, progress)
        except BaseException:
            run.kill()
            raise
    version = champion_version(home.models)
    if run.returncode or version is None:
        value = f"its making ended with exit status {run.returncode}"
        raise StartError("first model", value, "a promoted bundle", f"Look into {log}, or start with --no-train.")
    return version


def synthetic_version(folder: Path, pictures: Iterable[DemoImage]) -> DatasetVersion:
    """Synthetic pictures as a frozen dataset version in a folder, split by patient."""
    drawn = tuple(pictures)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for picture in drawn:
        (folder / picture.record.uri).write_bytes(picture.content)
    items = tuple(DatasetItem(picture.record, picture.truth) for picture in drawn)
    whole = split(Dataset(taxonomy.read(), items), SplitPolicy())
    sources = {picture.record.image_id: folder / picture.record.uri for picture in drawn}
    return datasets.freeze(whole, sources, folder / "datasets", {"synthetic": True})


def make(home: Home, tell: Callable[[StageLine], None]) -> None:
    """Trains the first bundle, or takes it from the cache, and promotes it."""
    from training import config, registry, retrain

    recipe = config.recipe("first")
    version = synthetic_version(home.root / _WORK, (render(SEED, index, OPTIONS) for index in range(COUNT)))
    kept = cache_folder() / "bundles" / hashlib.sha256(f"{version.digest} {recipe}".encode()).hexdigest()[:16]
    if not (kept / _NAME).is_file():
        bundle = retrain.train_first_bundle(
            version,
            models=home.models,
            runs=home.root / "runs",
            config=recipe,
            on_stage=lambda stage: tell(_line(stage)),
            progress=lambda part, done, total, _: tell(
                StageLine(_PROGRESS, 0.0, {"part": part, "done": done, "total": total})
            ),
        )
        runs = {run for name in _LINEAGE_RUNS if (run := bundle.lineage.get(name))}
        _keep(home, kept, bundle.version, runs)
        return None
    name = _restore(home, kept)
    bundle = registry.load_bundle(home.models, name)
    report = registry.load_report(bundle, datasets.Split.TEST, version.split_digest(datasets.Split.TEST))
    if report is None:
        shutil.rmtree(kept)
        return make(home, tell)
    decision = retrain.decide(report, None, recipe)
    registry.promote(home.models, name, decision, why="the first bundle, from the cache", force=True)
    return tell(StageLine("cache", 0.0, {"version": name}))


def main() -> None:
    """Entry point of `python -m dermloop.first_bundle --home DIR`; a line of JSON on standard output for each stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the local stack")
    home = Home.at(parser.parse_args().home)
    home.create()
    end_with_parent()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(line: StageLine) -> None:
        out.write(line.encode())

    make(home, tell)


def _keep(home: Home, target: Path, version: str, runs: Iterable[str]) -> None:
    """Copies a bundle and the runs that it came from; the folder appears whole or not at all."""
    with whole_folder(target, _NAME) as draft:
        shutil.copytree(home.models / version, draft / "models" / version)
        for run in runs:
            shutil.copytree(home.root / "runs" / run, draft / "runs" / run)
        (draft / _NAME).write_text(version, encoding="utf-8")


def _restore(home: Home, kept: Path) -> str:
    for part in ("models", "runs"):
        for source in (kept / part).glob("*"):
            shutil.copytree(source, home.root / part / source.name, dirs_exist_ok=True)
    return (kept / _NAME).read_text(encoding="utf-8").strip()


def _line(stage: StageReport) -> StageLine:
    return StageLine(stage.stage, stage.seconds, {**stage.counts})


def _pass_on(line: StageLine, say: Callable[[str], None], progress: Callable[[str, int, int], None] | None) -> None:
    if line.stage != _PROGRESS:
        say(_sentence(line))
    elif progress is not None:
        progress(f"  {line.counts['part']}", int(line.counts["done"]), int(line.counts["total"]))


def _sentence(line: StageLine) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in line.counts.items() if name in _SHOWN)
    return f"  {line.stage} done in {line.seconds:.0f} s" + (f": {facts}" if facts else "")


_SHOWN = ("images", "lesions", "version", "map50", "balanced_accuracy", "policy", "passed")

if __name__ == "__main__":
    main()
