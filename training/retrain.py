"""Dataset version in, promoted bundle out: train, evaluate, gate, promote; each step is callable on its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from converters.dataset import DatasetVersion, Split
from converters.taxonomy import Target
from ml_backend import bundle as bundles
from ml_backend import preprocessing
from ml_backend.bundle import ClassifierSpec, DetectorSpec, ModelBundle
from training import calibration, classifier, detector, evaluation, gate, pages, registry, remote, runs, tracking
from training import config as configs
from training.cases import Part
from training.classifier import TrainedClassifier
from training.config import TrainingConfig
from training.detector import TrainedDetector
from training.export import opset
from training.gate import GateDecision
from training.metrics import Flags
from training.registry import Promotion
from training.report import EvaluationReport
from training.runs import Progress, Run, silent

Only: TypeAlias = Literal["detector", "classifier"]
SHOWN = ("map50", "map50_95", "detection_sensitivity", "balanced_accuracy", "malignant_sensitivity")
_FALLBACK_THRESHOLD = 0.25


@dataclass(frozen=True, slots=True)
class StageReport:
    """One stage done: its name, its seconds, and what it counted, measured or decided, ready for a line of JSON."""

    stage: str
    seconds: float
    counts: Mapping[str, Any] = field(default_factory=dict)


OnStage: TypeAlias = Callable[[StageReport], None]


@dataclass(frozen=True, slots=True)
class TrainedParts:
    """What a training brought: one part or both, each with the spec it is to be served with, and its open run."""

    run: Run
    detector: tuple[TrainedDetector, DetectorSpec] | None = None
    classifier: tuple[TrainedClassifier, ClassifierSpec] | None = None

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.run.run_id


@dataclass(frozen=True, slots=True)
class RetrainOutcome:
    """How a retraining ended: the candidate that was decided on, its report, the decision, and the promotion if any."""

    candidate: ModelBundle
    report: EvaluationReport
    champion_report: EvaluationReport | None
    decision: GateDecision
    promotion: Promotion | None = None
    refused: tuple[GateDecision, ...] = field(default=())


def retrain(
    version: DatasetVersion,
    *,
    models: Path,
    runs: Path,
    config: TrainingConfig,
    only: Only | None = None,
    on_stage: OnStage = lambda stage: None,
    progress: Progress = silent,
    who: str | None = None,
    resumed: Run | None = None,
) -> RetrainOutcome:
    """The outcome of training on a version and of asking the gate; a pass is promoted unless it awaits a signature.

    `resumed` is the run that an interrupted retraining left behind.
    Where only one of two newly trained parts passes, it is paired with the champion's other part and offered again.
    """
    champion = registry.champion(models)
    begun = time.monotonic()
    parts = train(version, models=models, runs=runs, config=config, only=only, progress=progress, resumed=resumed)
    candidate = pair(parts, version, models, config, champion)
    on_stage(StageReport("train", _since(begun), _train_counts(parts, candidate)))
    begun = time.monotonic()
    report = evaluate(candidate, version, config, progress)
    tracking.track_evaluation(runs / parts.run_id, config, {metric.name: metric.value for metric in report.metrics})
    champion_report = evaluate(champion, version, config, progress) if champion else None
    on_stage(StageReport("evaluate", _since(begun), _shown(report, champion_report)))
    begun = time.monotonic()
    refused: list[GateDecision] = []
    decision = decide(report, champion_report, config)
    if not decision.passed and champion is not None:
        for half in _halves(parts, decision):
            refused.append(decision)
            candidate = pair(half, version, models, config, champion)
            report = evaluate(candidate, version, config, progress)
            decision = decide(report, champion_report, config)
            if decision.passed:
                break
    on_stage(_gate_stage(decision, _since(begun)))
    pages.write_pages(candidate, version, report, champion_report, decision)
    promotion = None
    if decision.passed and not decision.needs_sign_off:
        begun = time.monotonic()
        why = f"passed {decision.policy} on dataset {version.digest[:12]}"
        shared = remote.shared(config.registry)
        promotion = registry.promote(models, candidate.version, decision, why=why, who=who, shared=shared)
        on_stage(StageReport("promote", _since(begun), {"version": candidate.version, "why": why}))
    return RetrainOutcome(candidate, report, champion_report, decision, promotion, tuple(refused))


def train_first_bundle(
    version: DatasetVersion,
    *,
    models: Path,
    runs: Path,
    config: TrainingConfig | None = None,
    on_stage: OnStage = lambda stage: None,
    progress: Progress = silent,
) -> ModelBundle:
    """The champion, trained by the `first` recipe and its lenient policy where there is none yet."""
    if (known := registry.champion(models)) is not None:
        return known
    chosen = config or configs.recipe("first")
    outcome = retrain(version, models=models, runs=runs, config=chosen, on_stage=on_stage, progress=progress)
    if outcome.promotion is None:
        why = "the first bundle: whatever it measures, there was none before"
        registry.promote(models, outcome.candidate.version, outcome.decision, why=why, force=True)
    return outcome.candidate


def train(
    version: DatasetVersion,
    *,
    models: Path,
    runs: Path,
    config: TrainingConfig,
    only: Only | None = None,
    progress: Progress = silent,
    resumed: Run | None = None,
    cache: Path | None = None,
) -> TrainedParts:
    """The newly trained parts, each with thresholds set on the validation split; nothing is registered yet.

    The run stays open until `pair` has written the bundle.

    Raises DatasetError where an image is missing or changed since the freeze, DataError for splits that nothing can be
    learnt from, RunError where the disk is full; the run then says so, and can be resumed.
    `cache` holds what can be made again from the version; `<runs>/cache` by default.
    """
    champion = registry.champion(models)
    run = resumed or _start(runs, run_kind(only), version.digest, config, progress)
    cache = cache or runs / "cache"
    with run.failing():
        version.verify()
        new_detector = new_classifier = None
        if only != "classifier":
            warm = _checkpoint(runs, champion, "detector_run", detector.CHECKPOINT)
            trained = detector.train(version, run, cache, config.detector, warm)
            new_detector = (trained, _detector_spec(trained, version, run, config))
        if only != "detector":
            warm = _checkpoint(runs, champion, "classifier_run", classifier.CHECKPOINT)
            read = classifier.train(version, run, cache, config.classifier, warm, champion)
            new_classifier = (read, _classifier_spec(read, version, config))
    return TrainedParts(run, new_detector, new_classifier)


def pair(
    parts: TrainedParts, version: DatasetVersion, models: Path, config: TrainingConfig, champion: ModelBundle | None
) -> ModelBundle:
    """The written bundle of the new parts, each missing one taken from the champion; their run is finished.

    Raises RunError where the disk is full; the run then can be resumed, and has nothing to learn anew.
    """
    lineage = {"dataset": version.digest, "parent": champion.version if champion else ""}
    detects = reads = None
    if parts.detector is not None:
        detects = (parts.detector[0].graph, parts.detector[1])
        lineage |= _learnt("detector", parts.detector[0], parts.run_id, version)
    elif champion is not None and champion.detector is not None:
        detects = (champion.detector_path, champion.detector)
        lineage |= _inherited(champion, "detector_")
    if parts.classifier is not None:
        reads = (parts.classifier[0].graph, parts.classifier[1])
        lineage |= _learnt("classifier", parts.classifier[0], parts.run_id, version)
    elif champion is not None and champion.classifier is not None:
        reads = (champion.classifier_path, champion.classifier)
        lineage |= _inherited(champion, "classifier_")
    with parts.run.failing():
        written = bundles.write_bundle(
            models,
            name=config.name,
            taxonomy=version.dataset.taxonomy,
            detector=detects,
            classifier=reads,
            lineage=lineage,
        )
    parts.run.finish()
    return written


def run_kind(only: Only | None) -> str:
    """The kind of run that trains one part, or both."""
    return only or "both"


def evaluate(
    bundle: ModelBundle,
    version: DatasetVersion,
    config: TrainingConfig,
    progress: Progress = silent,
    split: Split = Split.TEST,
) -> EvaluationReport:
    """The report of a bundle on a split, measured once and kept beside the bundle."""
    known = registry.load_report(bundle, split, version.split_digest(split))
    if known is not None:
        return known
    found = evaluation.evaluate(bundle, version, split, config.evaluation, progress)
    registry.save_report(bundle, found)
    return found


def decide(candidate: EvaluationReport, champion: EvaluationReport | None, config: TrainingConfig) -> GateDecision:
    """The gate's decision under the configured policy."""
    own = Path(config.gate.policies) if config.gate.policies else None
    return gate.decide(candidate, champion, gate.read_policy(config.gate.policy, own))


def _start(folder: Path, kind: str, dataset: str, config: TrainingConfig, progress: Progress) -> Run:
    return runs.start(folder, kind, dataset, config, progress)


def _checkpoint(folder: Path, champion: ModelBundle | None, key: str, name: str) -> Path | None:
    run_id = champion.lineage.get(key) if champion else None
    path = folder / run_id / name if run_id else None
    return path if path is not None and path.is_file() else None


def _detector_spec(trained: TrainedDetector, version: DatasetVersion, run: Run, config: TrainingConfig) -> DetectorSpec:
    settings = config.detector
    spec = DetectorSpec(
        input_size=settings.image_size,
        task=settings.task,
        score_threshold=settings.score_threshold or _FALLBACK_THRESHOLD,
        iou_threshold=settings.iou_threshold,
        fusion_iou=settings.fusion_iou or None,
        max_detections=settings.max_detections,
    )
    if settings.score_threshold:
        return spec
    draft = ModelBundle(run.folder, "draft", "draft", version.dataset.taxonomy, spec)
    found = evaluation.best_threshold(evaluation.cases_of(draft, version, Split.VAL))
    return spec if found is None else replace(spec, score_threshold=round(found, 2))


def _classifier_spec(trained: TrainedClassifier, version: DatasetVersion, config: TrainingConfig) -> ClassifierSpec:
    settings, known = config.classifier, version.dataset.taxonomy
    heat = calibration.temperature(trained.logits, trained.labels)
    shares = preprocessing.softmax(trained.logits, heat)
    columns = _malignant_columns(version, settings.target)
    malignant = columns[trained.labels]
    return ClassifierSpec(
        target=settings.target,
        classes=known.classes(settings.target),
        input_size=trained.shape.image_size,
        scaling=trained.shape.scaling,
        crop_padding=settings.crop_padding,
        temperature=heat,
        conformal_threshold=calibration.conformal_threshold(shares, trained.labels, settings.coverage),
        operating_point=calibration.operating_point(
            calibration.malignant_shares(shares, columns), malignant, settings.sensitivity_goal
        ),
    )


def _malignant_columns(version: DatasetVersion, target: Target) -> Flags:
    known = version.dataset.taxonomy
    flags = np.zeros(len(known.classes(target)), dtype=bool)
    for diagnosis in known.diagnoses:
        flags[known.class_index(diagnosis, target)] |= diagnosis.malignant
    return flags


def _learnt(
    stage: Only, trained: TrainedDetector | TrainedClassifier, run_id: str, version: DatasetVersion
) -> dict[str, str]:
    """What a bundle's lineage says of a newly trained part."""
    facts = {"run": run_id, "start": trained.start, "dataset": version.digest, "opset": str(opset(trained.graph))}
    return {f"{stage}_{name}": fact for name, fact in facts.items()}


def _inherited(champion: ModelBundle, prefix: str) -> dict[str, str]:
    return {name: value for name, value in champion.lineage.items() if name.startswith(prefix)}


def _halves(parts: TrainedParts, decision: GateDecision) -> Iterator[TrainedParts]:
    """Each new part that passed on its own, without the other."""
    if parts.detector is None or parts.classifier is None:
        return
    if decision.passes(Part.DETECTOR):
        yield replace(parts, classifier=None)
    if decision.passes(Part.CLASSIFIER):
        yield replace(parts, detector=None)


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)


def _train_counts(parts: TrainedParts, candidate: ModelBundle) -> dict[str, Any]:
    counts: dict[str, Any] = {"version": candidate.version, "run": parts.run_id}
    if parts.detector is not None:
        trained, data = parts.detector[0], parts.detector[0].data
        counts |= {"images": data.images, "lesions": data.lesions, "background": data.background}
        counts |= {
            "detector_start": trained.start,
            "detector_epochs": trained.epochs,
            "detector_parity": trained.parity,
        }
    if parts.classifier is not None:
        read = parts.classifier[0]
        counts |= {"crops": sum(read.train_counts), "classifier_start": read.start}
        counts |= {"classifier_epochs": read.epochs, "classifier_parity": read.parity}
    return counts


def _shown(report: EvaluationReport, champion: EvaluationReport | None) -> dict[str, Any]:
    counts: dict[str, Any] = {"images": len(report.cases), "lesions": sum(case.lesions for case in report.cases)}
    counts |= {name: round(report.value(name), 4) for name in SHOWN if report.get(name)}
    if champion is not None:
        counts |= {f"champion_{name}": round(champion.value(name), 4) for name in SHOWN if champion.get(name)}
    return counts


def gate_counts(decision: GateDecision) -> dict[str, Any]:
    """A decision as facts for a line of JSON: policy, verdict, number of checks, and all reasons for a refusal."""
    return {
        "policy": decision.policy,
        "passed": decision.passed,
        "needs_sign_off": decision.needs_sign_off,
        "candidate": decision.candidate,
        "champion": decision.champion,
        "checks": len(decision.checks),
        "reasons": list(decision.reasons),
    }


def _gate_stage(decision: GateDecision, seconds: float) -> StageReport:
    return StageReport("gate", seconds, gate_counts(decision))
