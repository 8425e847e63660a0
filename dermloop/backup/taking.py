"""Taking a backup while everything runs.

Databases first, each as it is at one moment, then files: pictures, bundles and dataset versions never change once they
have their name, so that every one that a database speaks of is there when the files are read.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dermloop.backup import files, jobs, objects, postgresql, sqlite
from dermloop.backup.archive import MANIFEST, Manifest, Writer, writing
from dermloop.backup.places import Database, Places
from dermloop.errors import BackupError

AUDIT_HEAD = "audit_head"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BackupReport:
    """The archive, how many parts and bytes it holds, and what an operator should know of them."""

    archive: Path
    parts: int
    size: int
    notes: tuple[str, ...]


def take(
    places: Places, target: Path, say: Say, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> BackupReport:
    """The report on a new archive at `target`, or in it where it is a folder; the archive appears whole or not at all.

    Raises BackupError where something cannot be read, or the archive cannot be written.
    """
    if not places.home.root.is_dir():
        raise BackupError(str(places.home.root), "no folder", "a home of dermloop", "Name it with --home.")
    archive = target / f"dermloop-{now():%Y%m%dT%H%M%SZ}.tar" if target.is_dir() else target
    notes: list[str] = []
    facts: dict[str, str] = {}
    with writing(archive) as writer:
        for database in places.databases:
            _add_database(writer, database, facts, notes, say)
        say("Reading the job queue")
        jobs.add(writer, places.jobs)
        for name, root in places.trees:
            _add_tree(writer, name, root, places, notes, say)
        for bucket in places.buckets:
            say(f"Reading bucket {bucket}")
            objects.add_bucket(writer, places.s3_endpoint, bucket)
        version = importlib.metadata.version("dermloop")
        manifest = Manifest(now().isoformat(), version, tuple(writer.parts), facts, tuple(notes))
        with tempfile.TemporaryFile() as stream:
            stream.write(manifest.encode())
            writer.add(MANIFEST, stream)
    return BackupReport(archive, len(manifest.parts), archive.stat().st_size, manifest.notes)


def _add_database(writer: Writer, database: Database, facts: dict[str, str], notes: list[str], say: Say) -> None:
    file = database.file
    if file is not None and not file.is_file():
        notes.append(f"there is no database {database.name} yet")
        return
    say(f"Reading database {database.name}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        if file is not None:
            sqlite.snapshot(file, copy)
            head = sqlite.audit_head(copy)
        else:
            head = postgresql.dump(database.url, copy)
        if head and database.name == "review":
            facts[AUDIT_HEAD] = head
        with copy.open("rb") as stream:
            writer.add(database.part, stream, file.stat() if file else None)


def _add_tree(writer: Writer, name: str, root: Path, places: Places, notes: list[str], say: Say) -> None:
    if not root.is_dir():
        notes.append(f"there is no folder {name}")
        return
    say(f"Reading {root}")
    others = frozenset(other for _, other in places.trees if other != root)
    for path in files.listed(root, others):
        try:
            with files.steady(root / path) as (stream, like, changed):
                writer.add(f"{name}/{path}", stream, like)
        except FileNotFoundError:
            continue
        if changed:
            notes.append(f"{name}/{path} was being written; it is here as far as it was")
