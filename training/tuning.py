"""The one door to Optuna: searches settings on the validation split, in a study that goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from converters.dataset import DatasetVersion, Split
from ml_backend.bundle import DetectorSpec, ModelBundle
from training import classifier, detector, evaluation, runs
from training.cases import CaseTable, measures
from training.config import ClassifierConfig, DetectorConfig, TrainingConfig
from training.errors import ConfigError, MissingExtraError
from training.runs import Progress, Run, silent

Sampler = Literal["bayesian", "grid"]
Score: TypeAlias = Callable[[DatasetVersion, str, Run, Path, TrainingConfig], float]
"""Trains a trial in its run folder, with a cache, and returns its validation score."""


@dataclass(frozen=True, slots=True)
class Range:
    """The values one setting may take: between `low` and `high` (on a log scale where `log`), or one of `choices`."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[float | int | str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best settings found, their validation score, and how many trials the study has seen in all."""

    config: TrainingConfig
    score: float
    trials: int
    study: str


SPACES: Mapping[str, Mapping[str, Range]] = {
    "detector": {
        "learning_rate": Range(3e-4, 6e-3, log=True),
        "batch": Range(choices=(4, 8, 16)),
        "mosaic": Range(choices=(0.0, 0.5, 1.0)),
        "box_gain": Range(choices=(5.0, 7.5, 10.0)),
    },
    "classifier": {
        "learning_rate": Range(2e-4, 4e-3, log=True),
        "dropout": Range(choices=(0.1, 0.3, 0.5)),
        "batch": Range(choices=(8, 16, 32)),
        "label_smoothing": Range(choices=(0.0, 0.05, 0.1)),
        "class_weights": Range(choices=("balanced", "square-root")),
    },
}
"""What is searched by default; every name is a setting of the stage."""


def tune(
    version: DatasetVersion,
    stage: Literal["detector", "classifier"],
    *,
    folder: Path,
    config: TrainingConfig,
    trials: int,
    sampler: Sampler = "bayesian",
    space: Mapping[str, Range] | None = None,
    progress: Progress = silent,
    score: Score | None = None,
) -> Tuned:
    """The best settings of a stage after so many more trials; the study lies in `<folder>/tuning.db`.

    A trial that was killed stays without a score, and the next call goes on with new ones.
    Each trial trains on the training split and is judged on the validation split; the test split is never touched.
    Bayesian is Optuna's tree-structured Parzen estimator; grid walks all choices and needs them for every setting.
    """
    optuna = _optuna()
    chosen = dict(space or SPACES[stage])
    _check_space(stage, chosen, sampler)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{stage}-{version.digest[:16]}"
    study = optuna.create_study(
        study_name=name,
        storage=f"sqlite:///{folder / 'tuning.db'}",
        direction="maximize",
        load_if_exists=True,
    )
    study.sampler = _sampler(optuna, sampler, chosen, config.classifier.seed + len(study.trials))

    def judge(trial: Any) -> float:
        tried = _applied(config, stage, {key: _suggest(trial, key, one) for key, one in chosen.items()})
        run = runs.start(folder, f"tune-{stage}", version.digest, tried)
        with run.failing("give the same command again: the study goes on"):
            found = (score or trial_score)(version, stage, run, folder / "cache", tried)
        run.finish(f"validation score {found:.4f}")
        progress("tune", len(study.get_trials(deepcopy=False)), trials, f"score {found:.4f}")
        return found

    study.optimize(judge, n_trials=trials)
    best = _applied(config, stage, study.best_params)
    return Tuned(best, float(study.best_value), len(study.trials), name)


def trial_score(version: DatasetVersion, stage: str, run: Run, cache: Path, config: TrainingConfig) -> float:
    """Validation mAP50-95 of a detector; of a classifier the metric that picks its best epoch."""
    if stage == "classifier":
        return classifier.fit(version, run, cache, config.classifier).best
    detector.train(version, run, cache, config.detector)
    settings = config.detector
    fusion = settings.fusion_iou or None
    spec = DetectorSpec(settings.image_size, iou_threshold=settings.iou_threshold, fusion_iou=fusion)
    draft = ModelBundle(run.folder, "trial", "trial", version.dataset.taxonomy, spec)
    table = CaseTable(evaluation.cases_of(draft, version, Split.VAL), ())
    return measures(())["map50_95"].value(table, table.ones)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError(
            "optuna", str(error), "the train extra", "Run `pip install dermloop[train]`."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _check_space(stage: str, space: Mapping[str, Range], sampler: Sampler) -> None:
    known = {one.name for one in fields(DetectorConfig if stage == "detector" else ClassifierConfig)}
    if unknown := sorted(set(space) - known):
        raise ConfigError("tuning space", unknown, f"settings of the {stage}", "Correct the names.")
    if sampler == "grid" and (open_ones := sorted(name for name, one in space.items() if not one.choices)):
        raise ConfigError("tuning space", open_ones, "choices for every setting of a grid", "List their choices.")


def _sampler(optuna: Any, sampler: Sampler, space: Mapping[str, Range], seed: int) -> Any:
    """The sampler of a study; the seed differs from call to call, or a resumed study would try the same again."""
    if sampler == "grid":
        return optuna.samplers.GridSampler({name: list(one.choices) for name, one in space.items()})
    return optuna.samplers.TPESampler(seed=seed)


def _suggest(trial: Any, name: str, one: Range) -> Any:
    if one.choices:
        return trial.suggest_categorical(name, list(one.choices))
    return trial.suggest_float(name, one.low, one.high, log=one.log)


def _applied(config: TrainingConfig, stage: str, values: Mapping[str, Any]) -> TrainingConfig:
    if stage == "detector":
        return replace(config, detector=replace(config.detector, **values))
    return replace(config, classifier=replace(config.classifier, **values))
