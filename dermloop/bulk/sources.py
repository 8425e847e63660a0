"""Where the pictures of a run come from: a folder, a list of addresses, a bucket, or the tasks of a project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from converters.images import IMAGE_SUFFIXES
from converters.label_studio.controls import TaskField
from dermloop.bulk.plan import Item, Project
from dermloop.errors import BulkError
from ml_backend.bundle import ModelBundle
from ml_backend.label_config import read_config
from ml_backend.preannotate import ProjectClient
from ml_backend.s3 import ObjectStore

PROJECT = "project:"


def items(source: str, store: ObjectStore) -> Iterator[Item]:
    """The pictures of a folder, of a text file with an address a line, or of `s3://bucket/prefix`; raises BulkError."""
    if source.startswith("s3://"):
        return _objects(source, store)
    path = Path(source)
    if path.is_dir():
        return _files(path)
    if path.is_file():
        return _listed(path)
    cure = "Name one of these, or project:NUMBER."
    raise BulkError("source", source, "a folder, a file with an address a line, or s3://bucket/prefix", cure)


def project_number(source: str) -> int:
    """The number in `project:N`; raises BulkError where it is none."""
    number = source.removeprefix(PROJECT)
    if not number.isdigit():
        raise BulkError("source", source, "project:NUMBER", "Name the project by its number in Label Studio.")
    return int(number)


def tasks(client: ProjectClient, number: int, bundle: ModelBundle) -> tuple[Project, Iterator[Item]]:
    """A project and its waiting tasks that this model version has not read yet; raises ServingError."""
    project = Project(number, client.label_config(number))
    field = read_config(project.label_config, bundle.taxonomy).field
    waiting = (task for task in client.tasks(number) if not task.answered and not task.get(TaskField.REASON))
    due = (task for task in waiting if bundle.version not in task.model_versions)
    return project, (Item(f"task-{task.id}", task.get(field) or "", task.id) for task in due)


def _files(folder: Path) -> Iterator[Item]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            yield Item(path.relative_to(folder).as_posix(), str(path.absolute()))


def _listed(path: Path) -> Iterator[Item]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if address := line.strip():
                yield Item(address, address)


def _objects(source: str, store: ObjectStore) -> Iterator[Item]:
    parts = urlsplit(source)
    for key, _ in store.keys(parts.netloc, parts.path.lstrip("/")):
        if Path(key).suffix.lower() in IMAGE_SUFFIXES:
            yield Item(key, f"s3://{parts.netloc}/{key}")
