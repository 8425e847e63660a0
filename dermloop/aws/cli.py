"""Commands for AWS: `dermloop aws deploy|status|destroy|replay` and the jobs that run there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from dermloop.aws.clients import Aws
    from dermloop.aws.settings import AwsSettings
    from dermloop.aws.stack import Stack, StackView
    from training.targets import Target

app = typer.Typer(help="Run dermloop on AWS.", no_args_is_help=True)

STACK = typer.Option("", help="Name of the stack (DERMLOOP_AWS_STACK; dermloop by default).")
REGION = typer.Option(None, help="Region (AWS_REGION, or the profile's, by default).")
AS_JSON = typer.Option(False, "--json", help="Print one JSON object instead of text.")


@app.command()
def deploy(
    given: list[str] = typer.Option([], "--set", help="Parameter of the template as NAME=VALUE; others keep theirs."),
    yes: bool = typer.Option(False, "--yes", help="Show the changes, but do not ask."),
    replace: list[str] = typer.Option([], help="Resource that holds something and may be replaced or removed."),
    stack: str = STACK,
    region: str | None = REGION,
    as_json: bool = AS_JSON,
) -> None:
    """Show what would change and ask; then create the stack, or bring it to where the template says."""
    from dermloop.aws import deploy as work
    from dermloop.aws.changes import Change, refuse_losses

    aws, found, _ = _opened(stack, region, as_json)
    shown: list[Change] = []

    def agree(changes: Sequence[Change]) -> None:
        shown.extend(changes)
        for change in changes:
            typer.echo(change.sentence, err=as_json)
        refuse_losses(changes, replace)
        if not yes:
            typer.confirm(f"Make {len(changes)} changes to {found.name} in {aws.region_name}?", abort=True, err=as_json)

    done = work.deploy(aws, found, _parameters(given), agree)
    if as_json:
        typer.echo(json.dumps({"changed": done.changed, "changes": [asdict(one) for one in shown], **_row(done.view)}))
        return
    typer.echo(f"{done.view.name}: {done.view.state}" + ("" if done.changed else ", nothing to change"))
    _show_outputs(done.view)


@app.command()
def status(stack: str = STACK, region: str | None = REGION, as_json: bool = AS_JSON) -> None:
    """Show the stack, its addresses, how many uploads wait or failed, and what went wrong last."""
    from dermloop.aws import deploy as work

    aws, found, _ = _opened(stack, region, as_json)
    now = work.status(aws, found)
    failures = [event.sentence for event in now.failures]
    if as_json:
        counts = {"waiting": now.waiting, "failed": now.failed, "endpoint": now.endpoint, "failures": failures}
        typer.echo(json.dumps({**_row(now.view), **counts}))
        return
    typer.echo(f"{now.view.name}: {now.view.state or 'not there; run `dermloop aws deploy`'}")
    _show_outputs(now.view)
    if now.waiting is not None:
        typer.echo(f"uploads: {now.waiting} waiting, {now.failed} failed" + _replay_hint(now.failed))
    if now.endpoint:
        typer.echo(f"endpoint: {now.endpoint}")
    for sentence in failures:
        typer.echo(f"last change, {sentence}", err=True)


@app.command()
def destroy(
    stack: str = STACK,
    region: str | None = REGION,
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    delete_data: bool = typer.Option(False, "--delete-data", help="Delete the bucket with all images and models too."),
    as_json: bool = AS_JSON,
) -> None:
    """Remove the stack; the bucket with images, datasets, models and results stays unless told otherwise."""
    from dermloop.aws import deploy as work

    aws, found, _ = _opened(stack, region, as_json)
    if not yes:
        what = "the stack and ALL its data" if delete_data else "the stack; the bucket stays"
        typer.confirm(f"Remove {found.name} in {aws.region_name}: {what}?", abort=True)
    kept = work.destroy(aws, found, delete_data, lambda sentence: typer.echo(sentence, err=as_json))
    if as_json:
        typer.echo(json.dumps({"stack": found.name, "kept": kept or None}))
    else:
        typer.echo(f"{found.name} is gone; " + (f"the bucket {kept} is kept." if kept else "no bucket is left."))


@app.command()
def replay(stack: str = STACK, region: str | None = REGION, as_json: bool = AS_JSON) -> None:
    """Send the uploads that could not be read to be read again; a second time sends what failed since."""
    from dermloop.aws import replay as work

    aws, found, _ = _opened(stack, region, as_json)
    view = found.view()
    done = work.replay(aws, view.output("FailedQueue"), view.output("UploadsQueue"))
    if as_json:
        typer.echo(json.dumps({"sent": done.sent, "doubled": done.doubled, "left": [name for name, _ in done.left]}))
    else:
        typer.echo(f"{done.sent} sent to be read again, {done.doubled} named an object that was sent already.")
        for name, reason in done.left:
            typer.echo(f"message {name} stays: it {reason}.", err=True)
    if done.left:
        raise typer.Exit(1)


@app.command()
def backfill(
    source: str = typer.Argument(..., help="Where the pictures lie: s3://bucket/prefix."),
    name: str = typer.Option("", help="Name of this backfill; by default one of source and model, so that it goes on."),
    model: str = typer.Option("champion", help="Model version of the home, or `champion`."),
    home: Path = typer.Option(Path(".dermloop"), envvar="DERMLOOP_HOME", help="Folder of the local stack."),
    endpoint: list[str] = typer.Option([], help="Ask serving containers at these addresses instead of SageMaker."),
    size: int = typer.Option(500, "--shard", min=1, help="Pictures in a shard."),
    everything: bool = typer.Option(False, "--all", help="Pictures that have a result too."),
    out: Path | None = typer.Option(None, help="Write every answer of this run to this file, a JSON object a line."),
    stack: str = STACK,
    region: str | None = REGION,
    as_json: bool = AS_JSON,
) -> None:
    """Read thousands of pictures of a bucket in shards and put each result beside its picture; run again to go on."""
    from dermloop.aws import backfills

    aws, found, settings = _opened(stack, region, as_json)
    wish = backfills.Wish(source, name, model, home, tuple(endpoint), size, everything, out)
    done = backfills.run(aws, found, settings, wish, lambda sentence: typer.echo(sentence, err=True))
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        typer.echo(
            f"{done.read} read, {done.unreadable} unreadable, {done.pending} of {done.shards} shards to be done."
        )
    if done.pending:
        raise typer.Exit(1)


@app.command()
def label(
    name: str = typer.Argument(..., help="Name of the labelling job."),
    workteam: str = typer.Option(..., help="ARN of the private work team that labels."),
    images: Path = typer.Option(Path(".dermloop/images"), help="Folder of JPEG and PNG files; the home's by default."),
    readers: int = typer.Option(1, min=1, max=9, help="How many people label each picture."),
    days: int = typer.Option(10, min=1, max=10, help="Days for which the tasks are offered."),
    taxonomy: Path | None = typer.Option(None, help="Class list; the one of the package by default."),
    stack: str = STACK,
    region: str | None = REGION,
    as_json: bool = AS_JSON,
) -> None:
    """Create a Ground Truth labelling job for a folder of pictures, with the classes of the taxonomy."""
    from converters import taxonomy as taxonomies
    from dermloop.aws import labelling

    aws, found, _ = _opened(stack, region, as_json)
    order, known = labelling.Order(name, workteam, readers, days), taxonomies.read(taxonomy)
    count = labelling.create(aws, found.view(), order, images, known, lambda said: typer.echo(said, err=True))
    row = {"job": name, "images": count}
    typer.echo(json.dumps(row) if as_json else f"{name}: {count} pictures to label; see `dermloop aws collect-labels`.")


@app.command("collect-labels")
def collect_labels(
    name: str = typer.Argument(..., help="Name of the labelling job."),
    out: Path = typer.Option(..., help="Folder for the manifest and the pictures."),
    taxonomy: Path | None = typer.Option(None, help="Class list; the one of the package by default."),
    region: str | None = REGION,
    as_json: bool = AS_JSON,
) -> None:
    """Bring a finished labelling job into a folder that `dermloop convert` reads, and say what could not be read."""
    from converters import taxonomy as taxonomies
    from dermloop.aws import labelling
    from dermloop.aws.clients import Aws

    done = labelling.collect(Aws(region), name, out, taxonomies.read(taxonomy))
    if as_json:
        counts = {"images": done.images, "lesions": done.lesions, "refused": list(done.refused)}
        typer.echo(json.dumps({"folder": str(done.folder), **counts}))
    else:
        typer.echo(
            f"{done.folder}: {done.images} pictures, {done.lesions} lesions. Next: `dermloop convert {done.folder}`."
        )
        for reason in done.refused:
            typer.echo(reason, err=True)
    if done.refused:
        raise typer.Exit(1)


@app.command()
def cost(
    images: list[int] = typer.Option([1_000, 10_000, 100_000], help="Pictures a day; several times for several rows."),
    prices: Path | None = typer.Option(None, help="Sheet of prices and figures; the package's own by default."),
    as_json: bool = AS_JSON,
) -> None:
    """Print what a month is expected to cost, from the measured time for a picture and declared prices; asks nobody."""
    from dermloop.aws import cost as costs

    sheet = costs.read(prices or costs.PRICES)
    months = [costs.month(count, sheet) for count in images]
    if as_json:
        for one in months:
            typer.echo(json.dumps({**asdict(one), "uploads": one.uploads, "region": sheet.region}))
        return
    typer.echo(f"US dollars a month in {sheet.region}, prices of {sheet.looked_up}.")
    typer.echo(costs.table(months), nl=False)


@app.command()
def template(out: Path | None = typer.Option(None, help="Write it to this file instead of printing it.")) -> None:
    """Print the CloudFormation template, for those who deploy by other means."""
    from dermloop.aws.stack import TEMPLATE, rendered

    text = rendered(TEMPLATE.read_text(encoding="utf-8"))
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


def sagemaker() -> Target:
    """The place where `--on sagemaker` runs trainings: the stack of the environment."""
    from dermloop.aws.training import SagemakerTarget

    aws, found, settings = _opened("", None, quiet=True)
    return SagemakerTarget(aws, found.view, settings, lambda sentence: typer.echo(sentence, err=True))


def _opened(stack: str, region: str | None, quiet: bool = False) -> tuple[Aws, Stack, AwsSettings]:
    from dermloop.aws.clients import Aws
    from dermloop.aws.settings import read_settings
    from dermloop.aws.stack import Stack

    settings, aws = read_settings(), Aws(region)
    say = (lambda sentence: typer.echo(sentence, err=True)) if quiet else typer.echo
    return aws, Stack(aws, stack or settings.stack, say, settings.poll_seconds), settings


def _parameters(given: list[str]) -> dict[str, str]:
    from dermloop.errors import DeployError

    pairs = [text.partition("=") for text in given]
    for name, equals, _ in pairs:
        if not equals:
            raise DeployError("--set", name, "NAME=VALUE", "Write it as --set ReadMemory=4096.")
    return {name: value for name, _, value in pairs}


def _row(view: StackView) -> dict[str, object]:
    return {"stack": view.name, "state": view.state or None, "outputs": dict(view.outputs)}


def _show_outputs(view: StackView) -> None:
    for name, value in sorted(view.outputs.items()):
        typer.echo(f"  {name:<18} {value}")


def _replay_hint(failed: int | None) -> str:
    return " (`dermloop aws replay` sends them again)" if failed else ""
