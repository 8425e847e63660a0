"""Giving an archive back: everything is verified before anything is written, and nothing that was there is destroyed.

What is replaced steps aside within its own folder until all is back. Pointers and databases come last, so that an
interrupted restore is recognised and can be run again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dermloop.backup import files, jobs, objects, postgresql
from dermloop.backup.archive import Part, Reader
from dermloop.backup.places import Database, Places
from dermloop.backup.taking import AUDIT_HEAD
from dermloop.errors import BackupError
from dermloop.stack.supervisor import require_idle
from review_workflow.store import open_store

_MARK = ".restoring"
_ASIDE = ".before-restore"
_CHUNK = 1 << 20
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What came back: parts, and how many audit entries verify (None where the archive has no review)."""

    archive: Path
    created: str
    parts: int
    audit_entries: int | None
    notes: tuple[str, ...] = ()


def check(archive: Path) -> RestoreReport:
    """The report on an archive whose every digest is right; raises BackupError at the first that is not."""
    with _opened(archive) as reader:
        reader.require_whole()
        manifest = reader.manifest
        return RestoreReport(archive, manifest.created, len(manifest.parts), None, manifest.notes)


def restore(places: Places, archive: Path, replace: bool, say: Say) -> RestoreReport:
    """The report after the places hold what the archive holds and the audit log has verified.

    Raises BackupError where the archive is not whole, the places are of another kind than those it was taken from, or
    something is there already and `replace` is not given; until then nothing was written.
    """
    with _opened(archive) as reader:
        say("Verifying the archive")
        reader.require_whole()
        _require_same_kind(places, reader)
        _require_unused(places)
        if not replace and not _mark(places).exists():
            _require_empty(places, reader)
        places.home.create()
        _mark(places).write_text(str(archive), encoding="utf-8")
        _give_back(places, reader, say)
        entries = _verified(places, reader.manifest.facts.get(AUDIT_HEAD), say)
        _mark(places).unlink()
        _forget_aside(places)
        manifest = reader.manifest
        return RestoreReport(archive, manifest.created, len(manifest.parts), entries, manifest.notes)


@contextmanager
def _opened(archive: Path) -> Iterator[Reader]:
    reader = Reader(archive)
    try:
        yield reader
    finally:
        reader.close()


def _mark(places: Places) -> Path:
    return places.home.root / _MARK


def _require_same_kind(places: Places, reader: Reader) -> None:
    held = {part.path.partition(".")[0]: part.path for part in reader.under("databases")}
    for database in places.databases:
        found = held.get(database.part.partition(".")[0])
        if found is not None and found != database.part:
            cure = "Set the database's URL to the kind that the archive was taken from."
            raise BackupError(f"{reader.path}: {database.name}", found, database.part, cure)


def _require_unused(places: Places) -> None:
    require_idle(places.home)
    for database in places.databases:
        if database.file is None:
            postgresql.require_unused(database.url)
    jobs.require_unused(places.jobs)


def _require_empty(places: Places, reader: Reader) -> None:
    cure = "Name another place, or add --replace; nothing was changed."
    for _, root in places.trees:
        taken = next((path for path in files.listed(root) if _is_ours(path)), None) if root.is_dir() else None
        if taken is not None:
            raise BackupError(str(root), f"holds {taken} already", "an empty folder", cure)
    for database in places.databases:
        if database.file.exists() if database.file else not postgresql.is_empty(database.url):
            raise BackupError(f"database {database.name}", "is not empty", "an empty one", cure)
    if jobs.read(places.jobs):
        raise BackupError("job queue", "is not empty", "an empty one", cure)
    for bucket in places.buckets:
        if not objects.is_empty(places.s3_endpoint, bucket):
            raise BackupError(f"bucket {bucket}", "is not empty", "an empty one", cure)


def _is_ours(path: str) -> bool:
    return Path(path).name not in ("lost+found", ".keep")


def _give_back(places: Places, reader: Reader, say: Say) -> None:
    for name, root in places.trees:
        parts = reader.under(name)
        say(f"Giving back {root} ({len(parts)} files)")
        ordered = sorted(parts, key=lambda part: (files.is_pointer(part.path.removeprefix(f"{name}/")), part.path))
        others = frozenset(other for _, other in places.trees if other != root)
        _step_aside(root, others)
        for part in ordered:
            _write(reader, part, root / part.path.removeprefix(f"{name}/"))
    for bucket in places.buckets:
        say(f"Giving back bucket {bucket}")
        objects.give_back(reader, places.s3_endpoint, bucket)
    for database in places.databases:
        for part in (part for part in reader.manifest.parts if part.path == database.part):
            say(f"Giving back database {database.name}")
            _give_back_database(reader, part, database)
    say("Giving back the job queue")
    _give_back_jobs(places, reader)


def _give_back_database(reader: Reader, part: Part, database: Database) -> None:
    if database.file is not None:
        _move_database_aside(database.file)
        _write(reader, part, database.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        dumped = Path(folder) / "dump"
        _write(reader, part, dumped)
        postgresql.give_back(database.url, dumped)


def _give_back_jobs(places: Places, reader: Reader) -> None:
    file = jobs.file_of(places.jobs)
    if file is not None:
        _move_database_aside(file)
    jobs.give_back(reader, places.jobs, places.home.root / _ASIDE / jobs.PART)
    if file is not None and os.geteuid() == 0:
        owner = file.parent.stat()
        os.chown(file, owner.st_uid, owner.st_gid)


def _move_database_aside(file: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        _move_aside(file.with_name(file.name + suffix))


def _write(reader: Reader, part: Part, target: Path) -> None:
    """A part as a file, whole or not at all, with its rights and, where this process may, its owner."""
    draft = target.with_name(f".{target.name[:200]}.restoring")
    mode, user, group = reader.rights(part)
    try:
        _make_folder(target.parent, user, group)
        with reader.open(part) as source, draft.open("wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK)
        draft.chmod(mode)
        if os.geteuid() == 0:
            os.chown(draft, user, group)
        draft.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        cure = f"Make room or check rights, then restore again; what was there lies in {_ASIDE} beside it."
        raise BackupError(str(target), reason, "a file that can be written", cure) from error


def _make_folder(folder: Path, user: int, group: int) -> None:
    """A folder and those above it, each belonging to whoever owns the first file in it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent, user, group)
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, user, group)


def _step_aside(root: Path, others: frozenset[Path]) -> None:
    """Moves what an earlier state left below a folder into a folder of its own on the same volume."""
    if not root.is_dir():
        return
    for path in sorted(root.iterdir()):
        if path in others or path.name in (_MARK, _ASIDE, "served") or not _is_ours(path.name):
            continue
        if path.is_dir() and path.is_mount():
            _step_aside(path, others)
        else:
            _move_aside(path)


def _move_aside(path: Path) -> None:
    aside = path.parent / _ASIDE / path.name
    if not path.exists() or aside.exists():
        return
    aside.parent.mkdir(exist_ok=True)
    path.rename(aside)


def _forget_aside(places: Places) -> None:
    for _, root in places.trees:
        for aside in (root / _ASIDE, *root.glob(f"*/{_ASIDE}")):
            shutil.rmtree(aside, ignore_errors=True)


def _verified(places: Places, head: str | None, say: Say) -> int | None:
    """The number of audit entries, all of which verify and end as the archive says."""
    if head is None:
        return None
    say("Verifying the audit log")
    store = open_store(places.review.url)
    try:
        with store.reading() as session:
            problems = session.verify_audit()
            last = session.recent(1)
    finally:
        store.close()
    found = f"{last[0].seq} {last[0].digest}" if last else "0 "
    if problems or found != head:
        what = "; ".join(f"entry {p.seq}: {p.what}" for p in problems[:3]) or "another end than the archive's"
        cure = f"Use another archive; what was there lies in {_ASIDE}."
        raise BackupError("audit log", what, "the log as it was written", cure)
    return last[0].seq if last else 0
