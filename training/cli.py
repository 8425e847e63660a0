"""`dermloop train …` and its companions: train, evaluate, compare, promote, roll back, list, retrain."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from converters.dataset import DatasetVersion
    from training.config import TrainingConfig
    from training.retrain import Only, StageReport
    from training.runs import Progress

app = typer.Typer(help="Train, measure, gate and promote models.", no_args_is_help=True)


class Stage(StrEnum):
    """The two parts of a bundle."""

    DETECTOR = "detector"
    CLASSIFIER = "classifier"


Home = Annotated[Path, typer.Option(envvar="DERMLOOP_HOME", help="Folder of the local stack.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Config = Annotated[str, typer.Option(help="TOML file, or a recipe: first, loop, full.")]
Data = Annotated[str, typer.Option(help="Frozen dataset: folder or first digits of its digest; the newest by default.")]
Why = Annotated[str, typer.Option(help="Why; kept in the promotion log.")]
_HOME = Path(".dermloop")


@app.command()
def train(
    stage: Annotated[Stage, typer.Argument(help="Which part to train.")],
    home: Home = _HOME,
    dataset: Data = "",
    config: Config = "full",
    resume: Annotated[str, typer.Option(help="Run to take up again after a kill, by name.")] = "",
    as_json: Json = False,
) -> None:
    """Train one part on a frozen dataset, export it, pair it with the champion's other part; promotes nothing."""
    from training import registry, retrain, runs

    version, settings = _version(home, dataset), _config(config)
    with _progress(as_json) as progress:
        run = None
        if resume:
            run, settings = runs.resume(home / "runs" / resume, progress)
        parts = retrain.train(
            version,
            models=home / "models",
            runs=home / "runs",
            config=settings,
            only=_only(stage),
            progress=progress,
            resumed=run,
        )
        bundle = retrain.pair(parts, version, home / "models", settings, registry.champion(home / "models"))
    row = {"run": parts.run_id, "version": bundle.version, "dataset": version.digest}
    _print(as_json, row, f"{bundle.version} (run {parts.run_id}); see `dermloop evaluate {bundle.version}`")


@app.command("retrain")
def retrain_all(
    home: Home = _HOME,
    dataset: Data = "",
    config: Config = "full",
    only: Annotated[Stage | None, typer.Option(help="Train this part alone.")] = None,
    as_json: Json = False,
) -> None:
    """Train, evaluate, gate, and promote what passes; exits with status 1 where the gate refuses."""
    from training.retrain import retrain

    version, settings = _version(home, dataset), _config(config)

    def show(stage: StageReport) -> None:
        counts = {"stage": stage.stage, "seconds": stage.seconds, **stage.counts}
        text = ", ".join(f"{name} {value}" for name, value in stage.counts.items())
        _print(as_json, counts, f"{stage.stage} ({stage.seconds:.0f} s): {text}")

    with _progress(as_json) as progress:
        outcome = retrain(
            version,
            models=home / "models",
            runs=home / "runs",
            config=settings,
            only=_only(only) if only else None,
            on_stage=show,
            progress=progress,
        )
    if outcome.promotion is None:
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Model version, or `champion`.")] = "champion",
    home: Home = _HOME,
    dataset: Data = "",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    config: Config = "full",
    as_json: Json = False,
) -> None:
    """Measure a bundle through the serving pipeline; the report is kept beside the bundle."""
    from converters.dataset import Split
    from training import pages, registry, retrain

    bundle, version = registry.load_bundle(home / "models", model), _version(home, dataset)
    with _progress(as_json) as progress:
        report = retrain.evaluate(bundle, version, _config(config), progress, Split(split))
    rows = {m.name: {"value": m.value, "low": m.low, "high": m.high, "cases": m.cases} for m in report.metrics}
    lines = [f"{m.name:32} {m.value:7.3f}  [{m.low:.3f}, {m.high:.3f}]  n={m.cases}" for m in report.metrics]
    lines.append(f"{'ms_per_image':32} {report.ms_per_image:7.1f}")
    pages.write_pages(bundle, version, report)
    lines.append(f"Report: {bundle.root / pages.HTML}. {pages.DISCLAIMER}")
    facts = {"model": bundle.version, "dataset": version.digest, "split": split, "metrics": rows}
    _print(as_json, {**facts, "ms_per_image": report.ms_per_image}, "\n".join(lines))


@app.command()
def compare(
    candidate: Annotated[str, typer.Argument(help="Model version.")],
    champion: Annotated[str, typer.Argument(help="Model version, or `champion`.")] = "champion",
    home: Home = _HOME,
    dataset: Data = "",
    config: Config = "full",
    policy: Annotated[str, typer.Option(help="Gate policy; that of the configuration by default.")] = "",
    as_json: Json = False,
) -> None:
    """Put two bundles through the gate on the same test split and say every reason; promotes nothing."""
    from training import registry, retrain

    version, settings = _version(home, dataset), _with_policy(_config(config), policy)
    with _progress(as_json) as progress:
        bundles = [registry.load_bundle(home / "models", name) for name in (candidate, champion)]
        one, other = (retrain.evaluate(bundle, version, settings, progress) for bundle in bundles)
    decision = retrain.decide(one, other, settings)
    metrics = {m.name: [m.value, other.value(m.name)] for m in one.metrics}
    lines = [f"{name:32} {a:7.3f}  {b:7.3f}" for name, (a, b) in metrics.items()]
    lines += [f"{'passes' if check.passed else 'FAILS':7} {check.reason}" for check in decision.checks]
    lines.append(f"{decision.policy}: {'passed' if decision.passed else 'refused'}")
    _print(as_json, {**retrain.gate_counts(decision), "metrics": metrics}, "\n".join(lines))


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="Model version.")],
    why: Why,
    home: Home = _HOME,
    dataset: Data = "",
    config: Config = "full",
    policy: Annotated[str, typer.Option(help="Gate policy; that of the configuration by default.")] = "",
    force: Annotated[bool, typer.Option(help="Overrule the gate; the log tells its reasons.")] = False,
    signed_by: Annotated[str, typer.Option(help="The dermatologist who signs, where the policy asks for it.")] = "",
    as_json: Json = False,
) -> None:
    """Make a version the champion if it passes the gate; the backend follows within seconds."""
    from training import registry, retrain

    models, settings = home / "models", _with_policy(_config(config), policy)
    bundle, champion = registry.load_bundle(models, model), registry.champion(models)
    decision = None
    if dataset or not force:
        version = _version(home, dataset)
        with _progress(as_json) as progress:
            report = retrain.evaluate(bundle, version, settings, progress)
            peer = retrain.evaluate(champion, version, settings, progress) if champion else None
        decision = retrain.decide(report, peer, settings)
    entry = registry.promote(models, bundle.version, decision, why=why, force=force, signed_by=signed_by)
    _print(as_json, _row(entry), f"{entry.version} is the champion (before: {entry.previous or 'none'})")


@app.command()
def rollback(
    why: Why,
    home: Home = _HOME,
    to: Annotated[str, typer.Option(help="An earlier champion; the one before by default.")] = "",
    as_json: Json = False,
) -> None:
    """Return to an earlier champion; the backend follows within seconds."""
    from training import registry

    entry = registry.rollback(home / "models", why=why, to=to or None)
    _print(as_json, _row(entry), f"{entry.version} is the champion again (before: {entry.previous})")


@app.command()
def models(home: Home = _HOME, as_json: Json = False) -> None:
    """List the model versions: lineage, what they measured, why they were promoted."""
    from ml_backend import bundle as bundles
    from training import registry

    folder = home / "models"
    champion, log = bundles.champion_version(folder), registry.history(folder)
    for name in bundles.list_bundles(folder):
        bundle = bundles.load_bundle(folder / name)
        entries = [_row(entry) for entry in log if entry.version == name]
        row = {"version": name, "champion": name == champion, "lineage": dict(bundle.lineage), "promotions": entries}
        why = f": {entries[-1]['why']} ({entries[-1]['who']}, {entries[-1]['when']})" if entries else ""
        _print(as_json, row, f"{'*' if name == champion else ' '} {name}{why}")


@app.command()
def tune(
    stage: Annotated[Stage, typer.Argument(help="Which part to tune.")],
    home: Home = _HOME,
    dataset: Data = "",
    config: Config = "full",
    trials: Annotated[int, typer.Option(help="Trials to add to the study.")] = 10,
    grid: Annotated[bool, typer.Option("--grid", help="Walk all choices instead of Bayesian search.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the best settings to this TOML file.")] = None,
    as_json: Json = False,
) -> None:
    """Search settings on the validation split; the study goes on where it was stopped."""
    from dataclasses import replace

    from training import config as configs
    from training import tuning

    settings = _config(config)
    choices = {name: one for name, one in tuning.SPACES[stage].items() if one.choices}
    with _progress(as_json) as progress:
        found = tuning.tune(
            _version(home, dataset),
            _only(stage),
            folder=home / "runs" / "tuning",
            config=settings,
            trials=trials,
            sampler="grid" if grid else "bayesian",
            space=choices if grid else None,
            progress=progress,
        )
    if out is not None:
        out.write_text(configs.encode(replace(found.config, name=settings.name)), encoding="utf-8")
    row = {"study": found.study, "trials": found.trials, "score": found.score, "config": configs.encode(found.config)}
    _print(as_json, row, f"{found.study}: best validation score {found.score:.4f} of {found.trials} trials")


@app.command("cross-validate")
def cross_validate(
    home: Home = _HOME,
    dataset: Data = "",
    config: Config = "full",
    count: Annotated[int, typer.Option("--folds", help="How many folds.")] = 5,
    as_json: Json = False,
) -> None:
    """Fit the classifier on all folds but one, in turn, patients kept together; the locked test split stays out."""
    from training import classifier, runs
    from training.folds import folds

    version, settings, scores = _version(home, dataset), _config(config), []
    with _progress(as_json) as progress:
        for number, part in enumerate(folds(version, count, settings.classifier.seed), 1):
            run = runs.start(home / "runs", "fold", part.digest, settings, progress)
            scores.append(classifier.fit(part, run, home / "runs" / "cache", settings.classifier).best)
            run.finish(f"fold {number} of {count}: {scores[-1]:.4f}")
    mean = sum(scores) / len(scores)
    spread = (sum((score - mean) ** 2 for score in scores) / max(len(scores) - 1, 1)) ** 0.5
    row = {"metric": settings.classifier.select_by, "folds": scores, "mean": mean, "deviation": spread}
    _print(as_json, row, f"{settings.classifier.select_by} {mean:.3f} ± {spread:.3f} over {count} folds")


@app.command()
def export(
    form: Annotated[str, typer.Argument(help="int8, saved-model, tflite or tflite-dynamic.")],
    model: Annotated[str, typer.Argument(help="Model version, or `champion`.")] = "champion",
    home: Home = _HOME,
    dataset: Data = "",
    out: Annotated[Path | None, typer.Option(help="Where to write; beside the bundle by default.")] = None,
    as_json: Json = False,
) -> None:
    """Write a bundle in another form and prove it: INT8 as a bundle to be evaluated, the others from the checkpoint."""
    from training import classifier, registry
    from training import export as exports
    from training.errors import DataError

    bundle = registry.load_bundle(home / "models", model)
    if form == "int8":
        work = home / "runs" / "cache" / "int8"
        written = exports.int8_bundle(bundle, _version(home, dataset), home / "models", work)
        _print(as_json, {"version": written.version}, f"{written.version}; see `dermloop compare {written.version}`")
        return
    if form not in tuple(exports.Form):
        raise DataError("export form", form, f"int8, {', '.join(exports.Form)}", "Name one of these.")
    checkpoint = home / "runs" / bundle.lineage.get("classifier_run", "") / classifier.CHECKPOINT
    target = out or bundle.root / f"classifier-{form}"
    found = exports.export_classifier(checkpoint, bundle, exports.Form(form), target)
    row = {"path": str(found.path), "bytes": found.size, "gap": found.gap}
    _print(as_json, row, f"{found.path}: {found.size} bytes, largest difference {found.gap:.2g}")


@app.command()
def trace(
    patient: Annotated[str, typer.Argument(help="Patient id, as in the metadata.")],
    home: Home = _HOME,
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
    _print(as_json, row, "\n".join(f"{name:12} {', '.join(values) or '–'}" for name, values in row.items()))


@app.command("training-config")
def training_config(config: Config = "full") -> None:
    """Print every training setting as TOML, defaults included."""
    from training import config as configs

    typer.echo(configs.encode(_config(config)), nl=False)


def _config(name: str) -> TrainingConfig:
    from training import config as configs

    return configs.read(Path(name)) if name.endswith(".toml") else configs.recipe(name)


def _with_policy(config: TrainingConfig, policy: str) -> TrainingConfig:
    from dataclasses import replace

    return replace(config, gate=replace(config.gate, policy=policy)) if policy else config


def _only(stage: Stage) -> Only:
    return "detector" if stage is Stage.DETECTOR else "classifier"


def _version(home: Path, name: str) -> DatasetVersion:
    """The named frozen version, or the one written last."""
    from converters import dataset
    from training.errors import DataError

    if name and (Path(name) / dataset.VERSION).is_file():
        return dataset.load(Path(name))
    headers = sorted((home / "datasets").glob(f"*/{dataset.VERSION}"), key=lambda path: path.stat().st_mtime_ns)
    found = [path.parent for path in headers if path.parent.name.startswith(name[:16])]
    if not found or (name and len(found) > 1):
        known = ", ".join(path.parent.name for path in headers) or "none yet"
        raise DataError("dataset", name, f"one of: {known}", "Run `dermloop freeze`, or name a version.")
    return dataset.load(found[-1])


def _row(entry: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(entry)


def _print(as_json: bool, row: dict[str, Any], text: str) -> None:
    typer.echo(json.dumps(_without_nan(row), default=str) if as_json else text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and value != value else value


@contextmanager
def _progress(as_json: bool) -> Iterator[Progress]:
    """A progress bar for each part on the error stream, or silence where JSON is asked for."""
    from training.runs import silent

    if as_json:
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=console, redirect_stdout=False) as bars:
        tasks: dict[str, Any] = {}

        def show(part: str, done: int, total: int, text: str) -> None:
            if part not in tasks:
                tasks[part] = bars.add_task(part, total=total, text=text)
            bars.update(tasks[part], completed=done, total=total, text=text)

        yield show
