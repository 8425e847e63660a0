"""The training container's contract with SageMaker: `python -m training.sagemaker train`.

Below `/opt/ml`: settings in `input/config`, a frozen dataset and the champion in `input/data`; the bundle goes to
`model`, the run to `output/data`, checkpoints to `checkpoints`, and why a job failed to `output/failure`. SageMaker
sends SIGTERM two minutes before it takes a spot instance away: the training stops at the next epoch's checkpoint, and
the same job, started again on another instance, goes on from there.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import orjson

from converters import dataset
from converters.dataset import DatasetVersion
from converters.errors import DesignedError
from ml_backend import bundle as bundles
from training import config as configs
from training import registry, runs
from training.config import TrainingConfig
from training.errors import ConfigError
from training.runs import Progress, RunState

PREFIX_VARIABLE = "DERMLOOP_ML_PREFIX"
DATASET, CHAMPION, CONFIG = "dataset", "champion", "config"
STAGE, TASK = "stage", "task"
RESULT = "result.json"
SCORE = "validation:score"
PROGRESS = re.compile(r"dermloop progress: (?P<part>\w+) (?P<done>[0-9]+)/(?P<total>[0-9]+) ?(?P<text>.*)")
"""How an epoch is printed."""

METRICS: Mapping[str, str] = {
    SCORE: r"dermloop validation score: (-?[0-9.]+)",
    "loss": r"dermloop progress: .*loss ([0-9.]+)",
    "epoch": r"dermloop progress: \w+ ([0-9]+)/[0-9]+",
}
"""What SageMaker reads off the log, by name; printed below and nowhere else."""

_FAILURE_CHARACTERS = 1000
_GRACE_SECONDS = 100.0
_INTERRUPTED = 143
_FOLDERS = {"model": "SM_MODEL_DIR", "output/data": "SM_OUTPUT_DATA_DIR"}

Stage = Literal["detector", "classifier"]


class SpotInterruption(BaseException):
    """SageMaker asked the container to end, and the last epoch's checkpoint is written."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where SageMaker puts things and expects them."""

    root: Path

    @classmethod
    def here(cls) -> Layout:
        """`/opt/ml`, or the folder that DERMLOOP_ML_PREFIX names."""
        return cls(Path(os.environ.get(PREFIX_VARIABLE) or "/opt/ml"))

    def channel(self, name: str) -> Path:
        """The folder of an input channel."""
        return Path(os.environ.get(f"SM_CHANNEL_{name.upper()}") or self.root / "input" / "data" / name)

    def output(self, name: str) -> Path:
        """An output folder, made where it is not there: `model` or `output/data`."""
        place = Path(os.environ.get(_FOLDERS[name]) or self.root / name)
        place.mkdir(parents=True, exist_ok=True)
        return place

    @property
    def checkpoints(self) -> Path:
        """What SageMaker copies to S3 while the job runs, and back when it starts again."""
        return self.root / "checkpoints"

    @property
    def cache(self) -> Path:
        """What can be made again from the dataset."""
        return self.root / "cache"

    @property
    def failure(self) -> Path:
        """The file whose text becomes the job's failure reason."""
        return self.root / "output" / "failure"

    def hyperparameters(self) -> dict[str, str]:
        """The job's settings by name, as strings; raises ConfigError for a malformed file."""
        path = self.root / "input" / "config" / "hyperparameters.json"
        try:
            raw = orjson.loads(path.read_bytes())
            return {str(name): _plain(str(value)) for name, value in raw.items() if not _is_foreign(str(name))}
        except (OSError, orjson.JSONDecodeError, AttributeError) as error:
            raise ConfigError(str(path), str(error), "a JSON object", "Submit the job again.") from error


def main(words: Sequence[str]) -> int:
    """The exit status of a job: 0 when it is done, 143 when it was interrupted, 1 with a reason when it failed."""
    layout = Layout.here()
    try:
        if list(words) != ["train"]:
            raise ConfigError("container", list(words), "['train']", "Use the serving image to serve.")
        with _interruptible() as interrupted:
            _work(layout, layout.hyperparameters(), interrupted)
    except SpotInterruption:
        print("dermloop: interrupted; the same job goes on from the last checkpoint", flush=True)
        return _INTERRUPTED
    except DesignedError as error:
        return _failed(layout, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it was, the job must say so where SageMaker looks
        traceback.print_exc()
        return _failed(layout, f"{type(error).__name__}: {error}")
    return 0


def settings(layout: Layout, given: Mapping[str, str]) -> tuple[Stage, TrainingConfig]:
    """Which part a job trains and with which settings: the file of the channel, overruled by hyper-parameters.

    Raises ConfigError for an unknown part, or a hyper-parameter that is no setting of it.
    """
    stage = given.get(STAGE, "")
    if stage not in ("detector", "classifier"):
        raise ConfigError(f"hyper-parameter {STAGE}", stage, "detector or classifier", "Submit the job again.")
    path = layout.channel(CONFIG) / runs.SETTINGS
    config = configs.read(path) if path.is_file() else configs.recipe("full")
    own = {name: text for name, text in given.items() if name not in (STAGE, TASK)}
    return cast(Stage, stage), overruled(config, cast(Stage, stage), own)


def overruled(config: TrainingConfig, stage: Stage, given: Mapping[str, str]) -> TrainingConfig:
    """The settings with some of a part's replaced by hyper-parameters, which are strings; raises ConfigError."""
    part = getattr(config, stage)
    known = {one.name: getattr(part, one.name) for one in fields(part)}
    changes: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            raise ConfigError(f"hyper-parameter {name}", text, f"a setting of the {stage}", "Correct the name.")
        changes[name] = _like(known[name], name, _plain(text))
    return configs.decode({**_tables(config), stage: {**known, **changes}})


def _work(layout: Layout, given: Mapping[str, str], interrupted: Callable[[], bool]) -> None:
    stage, config = settings(layout, given)
    version = dataset.load(layout.channel(DATASET))
    progress = _printing(interrupted)
    if given.get(TASK) == "tune":
        _trial(layout, version, stage, config, progress)
    else:
        _training(layout, version, stage, config, progress)


def _training(
    layout: Layout, version: DatasetVersion, stage: Stage, config: TrainingConfig, progress: Progress
) -> None:
    from training import retrain

    models, champion = _adopt_champion(layout)
    found = _unfinished(layout.checkpoints, version, progress)
    run, config = found or (None, config)
    parts = retrain.train(
        version,
        models=models,
        runs=layout.checkpoints,
        config=config,
        only=stage,
        progress=progress,
        resumed=run,
        cache=layout.cache,
    )
    written = retrain.pair(parts, version, models, config, registry.champion(models))
    bundles.set_champion(models, written.version)
    if champion is not None and champion != written.version:
        shutil.rmtree(models / champion)
    _keep_run(layout, parts.run_id)
    _write_result(layout, {"run": parts.run_id, "version": written.version, "dataset": version.digest})


def _trial(layout: Layout, version: DatasetVersion, stage: Stage, config: TrainingConfig, progress: Progress) -> None:
    from training import tuning

    found = _unfinished(layout.checkpoints, version, progress)
    run = found[0] if found else runs.start(layout.checkpoints, f"tune-{stage}", version.digest, config, progress)
    score = tuning.trial_score(version, stage, run, layout.cache, found[1] if found else config)
    run.finish(f"validation score {score:.4f}")
    print(f"dermloop validation score: {score:.6f}", flush=True)
    _write_result(layout, {"run": run.run_id, "score": score, "dataset": version.digest})


def _adopt_champion(layout: Layout) -> tuple[Path, str | None]:
    """The job's models folder with the champion of the channel in it, and the checkpoints it was trained to."""
    models, source = layout.output("model"), layout.channel(CHAMPION)
    version = bundles.champion_version(source / "models")
    if version is None:
        return models, None
    shutil.copytree(source / "models" / version, models / version, dirs_exist_ok=True)
    bundles.set_champion(models, version)
    if (source / "runs").is_dir():
        shutil.copytree(source / "runs", layout.checkpoints, dirs_exist_ok=True)
    return models, version


def _unfinished(folder: Path, version: DatasetVersion, progress: Progress) -> tuple[runs.Run, TrainingConfig] | None:
    """The run that an interrupted container of this job left behind, taken up again.

    Containers number their processes alike, so a run found `running` was not necessarily left by this one.
    """
    for path in sorted(folder.glob(f"*/{runs.STATUS}"), reverse=True):
        status = runs.read_status(path.parent)
        if status.dataset == version.digest and status.state is not RunState.DONE:
            runs.note_interruption(path.parent)
            return runs.resume(path.parent, progress)
    return None


def _keep_run(layout: Layout, run_id: str) -> None:
    """Copies a run's own files, its checkpoint among them, to what SageMaker stores; not the libraries' folders."""
    source, target = layout.checkpoints / run_id, layout.output("output/data") / "runs" / run_id
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy2(path, target)


def _write_result(layout: Layout, row: Mapping[str, Any]) -> None:
    (layout.output("output/data") / RESULT).write_bytes(orjson.dumps(row, option=orjson.OPT_INDENT_2))


def _failed(layout: Layout, reason: str) -> int:
    layout.failure.parent.mkdir(parents=True, exist_ok=True)
    layout.failure.write_text(reason[:_FAILURE_CHARACTERS], encoding="utf-8")
    print(f"dermloop: {reason}", file=sys.stderr, flush=True)
    return 1


def _printing(interrupted: Callable[[], bool]) -> Progress:
    """Prints each epoch in the words that METRICS looks for; ends the training there once it was asked to."""

    def show(part: str, done: int, total: int, text: str) -> None:
        print(f"dermloop progress: {part} {done}/{total} {text}", flush=True)
        if interrupted():
            raise SpotInterruption

    return show


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come; where no epoch ends in time, the process ends by itself before it is killed."""
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        asked.set()
        timer = threading.Timer(_GRACE_SECONDS, os._exit, (_INTERRUPTED,))
        timer.daemon = True
        timer.start()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def _plain(text: str) -> str:
    """A hyper-parameter without the quotes that some submitters put around strings."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _is_foreign(name: str) -> bool:
    return name.startswith(("_", "sagemaker_"))


def _like(known: object, name: str, text: str) -> Any:
    """The value of a text, of the same kind as the setting's default; raises ConfigError."""
    try:
        if isinstance(known, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(known, int):
            return int(float(text)) if float(text).is_integer() else int(text)
        return float(text) if isinstance(known, float) else text
    except (KeyError, ValueError) as error:
        expected = f"a value like {known!r}"
        raise ConfigError(f"hyper-parameter {name}", text, expected, "Correct the value.") from error


def _tables(config: TrainingConfig) -> dict[str, Any]:
    return tomllib.loads(configs.encode(config))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
