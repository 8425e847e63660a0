"""`dermloop push` and `dermloop pull`: datasets and models between this machine and a registry on S3."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.command_options import HOME, Home, Json, Shared, named_version, tell

if TYPE_CHECKING:
    from training.remote import RemoteRegistry

app = typer.Typer(help="Share datasets and models.")


class Kind(StrEnum):
    """What is sent or fetched."""

    DATASET = "dataset"
    MODEL = "model"


What = Annotated[Kind, typer.Argument(help="dataset or model.")]


@app.command()
def push(
    what: What,
    name: Annotated[str, typer.Argument(help="Version; the newest dataset, or the champion, by default.")] = "",
    home: Home = HOME,
    shared: Shared = "",
    as_json: Json = False,
) -> None:
    """Send a dataset or model version to a shared registry; what is there already stays as it is."""
    from training import registry

    there = _registry(shared)
    if what is Kind.DATASET:
        version = named_version(home, name)
        sent, found = there.push_dataset(version), version.root.name
    else:
        bundle = registry.load_bundle(home / "models", name or "champion")
        sent, found = there.push_model(bundle), bundle.version
    row = {"what": what.value, "version": found, "files": sent, "registry": there.address}
    tell(as_json, row, f"{found}: {f'{sent} files sent' if sent else 'there already'} ({there.address})")


@app.command()
def pull(
    what: What,
    name: Annotated[str, typer.Argument(help="Version; the shared champion, to be served here, by default.")] = "",
    home: Home = HOME,
    shared: Shared = "",
    follow: Annotated[bool, typer.Option("--follow", help="Go on: ask every second, until interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch a dataset or model version from a shared registry, every digest checked; a champion is served here too."""
    from training.errors import RegistryError

    there = _registry(shared)
    if what is Kind.DATASET:
        if not name:
            raise RegistryError("dataset", "", "the first 16 digits of its digest", "Name a version.")
        found = there.pull_dataset(name, home / "datasets").root.name
    else:
        found = there.pull_model(name, home / "models").version if name else _serve_champion(there, home / "models")
    row = {"what": what.value, "version": found, "registry": there.address}
    tell(as_json, row, f"{found} ({there.address})")
    while follow and not name:
        time.sleep(1)
        if there.pointer() != found:
            found = _serve_champion(there, home / "models")
            tell(as_json, {**row, "version": found}, f"{found} ({there.address})")


def _serve_champion(there: RemoteRegistry, models: Path) -> str:
    from training import registry
    from training.errors import RegistryError

    there.champion()
    entries = there.history()
    if not entries:
        raise RegistryError(f"champion of {there.address}", None, "a promoted model", "Promote one first.")
    bundle = there.pull_model(entries[-1].version, models)
    registry.follow(models, entries[-1])
    return bundle.version


def _registry(address: str) -> RemoteRegistry:
    from training.errors import RegistryError
    from training.remote import RemoteRegistry

    if not address:
        raise RegistryError("registry", "", "s3://bucket/prefix", "Name it with --registry or DERMLOOP_REGISTRY.")
    return RemoteRegistry(address)
