"""`dermloop export`: a bundle in other forms, each proven on golden images, in a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.command_options import HOME, Config, Data, Home, Json, named_config, named_version, shown_progress, tell

if TYPE_CHECKING:
    from converters.dataset import DatasetVersion
    from ml_backend.bundle import ModelBundle

app = typer.Typer(help="Write models in other forms.")
_INT8, _ALL = "int8", "all"
_COST = ("map50", "map50_95", "detection_sensitivity", "balanced_accuracy", "malignant_sensitivity")


@app.command()
def export(
    form: Annotated[
        str, typer.Argument(help="int8, saved-model, tflite, tflite-dynamic, tfjs, onnx-web, or all of them.")
    ],
    model: Annotated[str, typer.Argument(help="Model version, or `champion`.")] = "champion",
    home: Home = HOME,
    dataset: Data = "",
    config: Config = "full",
    out: Annotated[Path | None, typer.Option(help="Folder to write into; beside the bundle by default.")] = None,
    as_json: Json = False,
) -> None:
    """Write a bundle in another form and prove it: INT8 as a bundle to be evaluated, the others on golden images."""
    from training import export as exports
    from training import registry
    from training.errors import DataError

    known = (_INT8, *exports.Form)
    if form not in (*known, _ALL):
        raise DataError("export form", form, f"all, {', '.join(known)}", "Name one of these.")
    bundle, version = registry.load_bundle(home / "models", model), named_version(home, dataset)
    wanted = known if form == _ALL else (form,)
    if not as_json:
        typer.echo(f"{'form':15} {'bytes':>12} {'difference':>12} {'allowed':>9}  where")
    for row in _rows(bundle, version, wanted, home, out or bundle.root):
        tell(as_json, row, _line(row))
    if _INT8 in wanted:
        _int8(bundle, version, home, config, as_json)


def _rows(
    bundle: ModelBundle, version: DatasetVersion, wanted: tuple[str, ...], home: Path, folder: Path
) -> Iterator[dict[str, Any]]:
    from training import classifier, toolbox
    from training import export as exports
    from training.quiet import unheard

    golden = exports.golden_images(bundle, version)
    checkpoint = home / "runs" / bundle.lineage.get("classifier_run", "") / classifier.CHECKPOINT
    for form in (exports.Form(name) for name in wanted if name != _INT8):
        target = folder / (f"web-{bundle.version}" if form is exports.Form.ONNX_WEB else f"classifier-{form}")
        with unheard():
            made = exports.export_form(bundle, form, target, golden, checkpoint, toolbox.tools_folder())
        row = {"form": made.form.value, "path": str(made.path), "bytes": made.size}
        yield {**row, "gap": made.gap, "tolerance": made.tolerance, "agrees": True}


def _line(row: dict[str, Any]) -> str:
    return f"{row['form']:15} {row['bytes']:12} {row['gap']:12.2g} {row['tolerance']:9.0e}  {row['path']}"


def _int8(bundle: ModelBundle, version: DatasetVersion, home: Path, config: str, as_json: bool) -> None:
    """Writes the INT8 bundle, measures both on the test split, and says what the smaller one costs."""
    from training import export as exports
    from training import retrain
    from training.quiet import unheard

    settings = named_config(config)
    with unheard():
        small = exports.int8_bundle(bundle, version, home / "models", home / "runs" / "cache" / "int8")
    with shown_progress(as_json) as progress:
        before, after = (retrain.evaluate(one, version, settings, progress) for one in (bundle, small))
    cost = {name: [before.value(name), after.value(name)] for name in _COST if before.get(name)}
    cost["ms_per_image"] = [before.ms_per_image, after.ms_per_image]
    sizes = [sum(path.stat().st_size for path in one.root.glob("*.onnx")) for one in (bundle, small)]
    lines = [f"{_INT8:15} {sizes[1]:12} {'':12} {'':9}  {small.root}"]
    lines += [f"  {name:28} {was:8.3f} → {now:.3f}" for name, (was, now) in cost.items()]
    lines.append(f"Ask the gate: `dermloop compare {small.version}`")
    row = {"form": _INT8, "path": str(small.root), "bytes": sizes[1], "version": small.version, "cost": cost}
    tell(as_json, {**row, "bytes_before": sizes[0]}, "\n".join(lines))
