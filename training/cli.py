"""`dermloop train …` and its companions: train, evaluate, compare, promote, roll back, list, retrain."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from training.config import TrainingConfig
    from training.gate import Check
    from training.retrain import Only, StageReport

from training.command_options import (
    HOME,
    Config,
    Data,
    Home,
    Json,
    Shared,
    named_config,
    named_split,
    named_version,
    resumed_version,
    shown_progress,
    tell,
)

app = typer.Typer(help="Train, measure, gate and promote models.", no_args_is_help=True)


class Stage(StrEnum):
    """The two parts of a bundle."""

    DETECTOR = "detector"
    CLASSIFIER = "classifier"


On = Annotated[str, typer.Option(help="Where it runs: local, or sagemaker (docs/aws.md).")]
Why = Annotated[str, typer.Option(help="Why; kept in the promotion log.")]
Resume = Annotated[str, typer.Option(help="Interrupted run to take up again, with the settings it began with.")]


@app.command()
def train(
    stage: Annotated[Stage, typer.Argument(help="Which part to train.")],
    home: Home = HOME,
    dataset: Data = "",
    config: Config = "full",
    resume: Resume = "",
    on: On = "local",
    as_json: Json = False,
) -> None:
    """Train one part on a frozen dataset, export it, pair it with the champion's other part; promotes nothing."""
    from training import targets

    version = resumed_version(home, dataset, resume)
    order = targets.TrainOrder(_only(stage), version, home, named_config(config), resume)
    target = targets.find(on)
    with shown_progress(as_json) as progress:
        done = target.train(order, progress)
    row = {"run": done.run_id, "version": done.version, "dataset": order.version.digest}
    tell(as_json, row, f"{done.version} (run {done.run_id}); see `dermloop evaluate {done.version}`")


@app.command("retrain")
def retrain_all(
    home: Home = HOME,
    dataset: Data = "",
    config: Config = "full",
    only: Annotated[Stage | None, typer.Option(help="Train this part alone.")] = None,
    resume: Resume = "",
    as_json: Json = False,
) -> None:
    """Train, evaluate, gate, and promote what passes; exits with status 1 where the gate refuses."""
    from training import runs
    from training.retrain import retrain, run_kind

    version, settings, run = resumed_version(home, dataset, resume), named_config(config), None

    def show(stage: StageReport) -> None:
        counts = {"stage": stage.stage, "seconds": stage.seconds, **stage.counts}
        tell(as_json, counts, f"{stage.stage} ({stage.seconds:.0f} s): {_in_words(stage)}")

    with shown_progress(as_json) as progress:
        if resume:
            folder = home / "runs" / resume
            runs.require_same(runs.read_status(folder), run_kind(_only(only) if only else None), version.digest)
            run, settings = runs.resume(folder, progress)
        outcome = retrain(
            version,
            models=home / "models",
            runs=home / "runs",
            config=settings,
            only=_only(only) if only else None,
            on_stage=show,
            progress=progress,
            resumed=run,
        )
    if outcome.promotion is None:
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Model version, or `champion`.")] = "champion",
    home: Home = HOME,
    dataset: Data = "",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    config: Config = "full",
    as_json: Json = False,
) -> None:
    """Measure a bundle through the serving pipeline; the report is kept beside the bundle."""
    from training import pages, registry, retrain

    bundle, version = registry.load_bundle(home / "models", model), named_version(home, dataset)
    with shown_progress(as_json) as progress:
        report = retrain.evaluate(bundle, version, named_config(config), progress, named_split(split))
    rows = {m.name: {"value": m.value, "low": m.low, "high": m.high, "cases": m.cases} for m in report.metrics}
    lines = [f"{m.name:32} {m.value:7.3f}  [{m.low:.3f}, {m.high:.3f}]  n={m.cases}" for m in report.metrics]
    lines.append(f"{'ms_per_image':32} {report.ms_per_image:7.1f}")
    pages.write_pages(bundle, version, report)
    lines.append(f"Report: {bundle.root / pages.HTML}. {pages.DISCLAIMER}")
    facts = {"model": bundle.version, "dataset": version.digest, "split": split, "metrics": rows}
    tell(as_json, {**facts, "ms_per_image": report.ms_per_image}, "\n".join(lines))


@app.command()
def compare(
    candidate: Annotated[str, typer.Argument(help="Model version.")],
    champion: Annotated[str, typer.Argument(help="Model version, or `champion`.")] = "champion",
    home: Home = HOME,
    dataset: Data = "",
    config: Config = "full",
    policy: Annotated[str, typer.Option(help="Gate policy; that of the configuration by default.")] = "",
    page: Annotated[Path | None, typer.Option(help="Write both side by side to this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Put two bundles through the gate on the same test split and say every reason; promotes nothing."""
    from training import comparison, pages, registry, retrain

    version, settings = named_version(home, dataset), _with_policy(named_config(config), policy)
    with shown_progress(as_json) as progress:
        bundles = [registry.load_bundle(home / "models", name) for name in (candidate, champion)]
        one, other = (retrain.evaluate(bundle, version, settings, progress) for bundle in bundles)
    decision = retrain.decide(one, other, settings)
    gaps = {gap.metric: [gap.gap, gap.low, gap.high] for gap in comparison.differences(one, other)}
    if page is not None:
        page.write_text(pages.html_report(bundles[0], version, one, other, decision), encoding="utf-8")
    metrics = {m.name: [m.value, other.value(m.name)] for m in one.metrics}
    lines = [f"{'':32} {'this':>7}  {'other':>7}   difference (paired, 95 %)"]
    for name, (a, b) in metrics.items():
        gap = gaps.get(name)
        lines.append(
            f"{name:32} {a:7.3f}  {b:7.3f}" + (f"   {gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]" if gap else "")
        )
    lines += [f"{_verdict(check):11} {check.reason}" for check in decision.checks]
    lines.append(f"{decision.policy}: {'passed' if decision.passed else 'refused'}")
    tell(as_json, {**retrain.gate_counts(decision), "metrics": metrics, "differences": gaps}, "\n".join(lines))


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="Model version.")],
    why: Why,
    home: Home = HOME,
    dataset: Data = "",
    config: Config = "full",
    policy: Annotated[str, typer.Option(help="Gate policy; that of the configuration by default.")] = "",
    force: Annotated[bool, typer.Option(help="Overrule the gate; the log tells its reasons.")] = False,
    signed_by: Annotated[str, typer.Option(help="The dermatologist who signs, where the policy asks for it.")] = "",
    shared: Shared = "",
    as_json: Json = False,
) -> None:
    """Make a version the champion if it passes the gate; the backend follows within seconds."""
    from training import registry, remote, retrain

    models, settings = home / "models", _with_policy(named_config(config), policy)
    bundle, champion = registry.load_bundle(models, model), registry.champion(models)
    decision = None
    if dataset or not force:
        version = named_version(home, dataset)
        with shown_progress(as_json) as progress:
            report = retrain.evaluate(bundle, version, settings, progress)
            peer = retrain.evaluate(champion, version, settings, progress) if champion else None
        decision = retrain.decide(report, peer, settings)
    there = remote.shared(shared or settings.registry)
    entry = registry.promote(models, bundle.version, decision, why=why, force=force, signed_by=signed_by, shared=there)
    tell(as_json, _row(entry), f"{entry.version} is the champion (before: {entry.previous or 'none'})")


@app.command()
def rollback(
    why: Why,
    home: Home = HOME,
    to: Annotated[str, typer.Option(help="An earlier champion; the one before by default.")] = "",
    shared: Shared = "",
    as_json: Json = False,
) -> None:
    """Return to an earlier champion; the backend follows within seconds."""
    from training import registry, remote

    entry = registry.rollback(home / "models", why=why, to=to or None, shared=remote.shared(shared))
    tell(as_json, _row(entry), f"{entry.version} is the champion again (before: {entry.previous})")


@app.command()
def models(home: Home = HOME, shared: Shared = "", as_json: Json = False) -> None:
    """List the model versions: lineage, what they measured, why they were promoted; with --registry the shared log."""
    from ml_backend import bundle as bundles
    from training import registry
    from training.remote import RemoteRegistry

    if shared:
        for entry in RemoteRegistry(shared).history():
            text = f"{entry.when}  {entry.change:9} {entry.version}: {entry.why} ({entry.who})"
            tell(as_json, _row(entry), text)
        return
    folder = home / "models"
    champion, log = bundles.champion_version(folder), registry.history(folder)
    for name in bundles.list_bundles(folder):
        bundle = bundles.load_bundle(folder / name)
        entries = [_row(entry) for entry in log if entry.version == name]
        row = {"version": name, "champion": name == champion, "lineage": dict(bundle.lineage), "promotions": entries}
        why = f": {entries[-1]['why']} ({entries[-1]['who']}, {entries[-1]['when']})" if entries else ""
        tell(as_json, row, f"{'*' if name == champion else ' '} {name}{why}")


@app.command()
def tune(
    stage: Annotated[Stage, typer.Argument(help="Which part to tune.")],
    home: Home = HOME,
    dataset: Data = "",
    config: Config = "full",
    trials: Annotated[int, typer.Option(help="Trials to add to the study.")] = 10,
    grid: Annotated[bool, typer.Option("--grid", help="Walk all choices instead of Bayesian search.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the best settings to this TOML file.")] = None,
    resume: Annotated[str, typer.Option(help="Job elsewhere to follow again, by name.")] = "",
    on: On = "local",
    as_json: Json = False,
) -> None:
    """Search settings on the validation split; the study goes on where it was stopped."""
    from dataclasses import replace

    from training import config as configs
    from training import targets

    settings, target = named_config(config), targets.find(on)
    order = targets.TuneOrder(_only(stage), named_version(home, dataset), home, settings, trials, grid, resume)
    with shown_progress(as_json) as progress:
        found = target.tune(order, progress)
    if out is not None:
        out.write_text(configs.encode(replace(found.config, name=settings.name)), encoding="utf-8")
    row = {"study": found.study, "trials": found.trials, "score": found.score, "config": configs.encode(found.config)}
    tell(as_json, row, f"{found.study}: best validation score {found.score:.4f} of {found.trials} trials")


@app.command("cross-validate")
def cross_validate(
    home: Home = HOME,
    dataset: Data = "",
    config: Config = "full",
    count: Annotated[int, typer.Option("--folds", help="How many folds.")] = 5,
    as_json: Json = False,
) -> None:
    """Fit the classifier on all folds but one, in turn, patients kept together; the locked test split stays out."""
    from training import classifier, runs
    from training.folds import folds

    version, settings, scores = named_version(home, dataset), named_config(config), []
    with shown_progress(as_json) as progress:
        for number, part in enumerate(folds(version, count, settings.classifier.seed), 1):
            run = runs.start(home / "runs", "fold", part.digest, settings, progress)
            scores.append(classifier.fit(part, run, home / "runs" / "cache", settings.classifier).best)
            run.finish(f"fold {number} of {count}: {scores[-1]:.4f}")
    mean = sum(scores) / len(scores)
    spread = (sum((score - mean) ** 2 for score in scores) / max(len(scores) - 1, 1)) ** 0.5
    row = {"metric": settings.classifier.select_by, "folds": scores, "mean": mean, "deviation": spread}
    tell(as_json, row, f"{settings.classifier.select_by} {mean:.3f} ± {spread:.3f} over {count} folds")


@app.command()
def trace(
    patient: Annotated[str, typer.Argument(help="Patient id, as in the metadata.")],
    home: Home = HOME,
    freeze: Annotated[bool, typer.Option("--freeze", help="Freeze successors without the patient.")] = False,
    as_json: Json = False,
) -> None:
    """Say which dataset versions and models saw a patient who withdraws, and freeze successors without them."""
    from training import withdrawal

    found = withdrawal.trace(patient, home / "datasets", home / "models")
    after = withdrawal.successors(found, home / "datasets") if freeze else ()
    row = {
        "images": list(found.images),
        "versions": [version.root.name for version in found.versions],
        "models": list(found.models),
        "descendants": list(found.descendants),
        "successors": [version.root.name for version in after],
    }
    words = "\n".join(f"{name:12} {', '.join(values) or '–'}" for name, values in row.items())
    tell(as_json, row, words if found.images else f"No version in {home / 'datasets'} has an image of {patient!r}.")


@app.command("training-config")
def training_config(config: Config = "full") -> None:
    """Print every training setting as TOML, defaults included."""
    from training import config as configs

    typer.echo(configs.encode(named_config(config)), nl=False)


def _verdict(check: Check) -> str:
    return "no evidence" if check.no_evidence else "passes" if check.passed else "FAILS"


def _in_words(stage: StageReport) -> str:
    """What a stage counted, for people: the gate's verdict with its reasons, else each figure with its name."""
    if stage.stage != "gate":
        return ", ".join(f"{name.replace('_', ' ')} {value or 'none'}" for name, value in stage.counts.items())
    facts = stage.counts
    against = f" against {facts['champion']}" if facts["champion"] else ""
    verdict = f"{facts['policy']} {'passed' if facts['passed'] else 'refused'} {facts['candidate']}{against}"
    sign = "; a dermatologist has to sign (`dermloop promote --signed-by`)" if facts["needs_sign_off"] else ""
    return "\n  ".join([verdict + (sign if facts["passed"] else ""), *facts["reasons"]])


def _with_policy(config: TrainingConfig, policy: str) -> TrainingConfig:
    from dataclasses import replace

    return replace(config, gate=replace(config.gate, policy=policy)) if policy else config


def _only(stage: Stage) -> Only:
    return "detector" if stage is Stage.DETECTOR else "classifier"


def _row(entry: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(entry)
