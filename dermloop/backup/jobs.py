"""Jobs that wait, run or are over: out of the queue's store, whichever it is, into an archive and back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import orjson

from dermloop.backup import sqlite
from dermloop.backup.archive import Reader, Writer
from dermloop.errors import BackupError
from ml_backend.errors import JobError
from ml_backend.jobs import QUEUES, TRAININGS, JobQueue, decode_job

PART = "jobs.jsonl"
"""One job a line, with the name of its queue: the same for a file and for Redis, so that either goes into the other."""


def file_of(address: str) -> Path | None:
    """The file of a queue's address; None for a store with a server."""
    return None if "://" in address else Path(address).absolute()


def read(address: str) -> bytes:
    """The jobs of all queues at an address, as lines of JSON; raises BackupError where the store does not answer."""
    file = file_of(address)
    if file is None:
        return _read(address)
    if not file.is_file():
        return b""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        sqlite.snapshot(file, copy)
        return _read(str(copy))


def add(writer: Writer, address: str) -> int:
    """How many jobs were added to an archive."""
    content = read(address)
    with tempfile.TemporaryFile() as stream:
        stream.write(content)
        writer.add(PART, stream)
    return content.count(b"\n")


def require_unused(address: str) -> None:
    """Raises BackupError where another program is connected to the queue's store."""
    with _opened(address, TRAININGS) as queue:
        if count := queue.others():
            cure = "Stop the programs that use it, then run it again; nothing was changed."
            raise BackupError("job queue", f"{count} other connections", "none", cure)


def give_back(reader: Reader, address: str, aside: Path) -> None:
    """Replaces the jobs at an address by an archive's: what waited or ran waits again.

    What a server's store held is written to `aside` first, unless an earlier attempt did so.
    """
    part = next((part for part in reader.manifest.parts if part.path == PART), None)
    if part is None:
        return
    if file_of(address) is None and not aside.exists() and (before := _read(address)):
        aside.parent.mkdir(exist_ok=True)
        aside.write_bytes(before)
    with reader.open(part) as stream:
        rows = [orjson.loads(line) for line in stream.read().splitlines()]
    for name in QUEUES:
        with _opened(address, name) as queue:
            queue.take_in(decode_job(row["job"]) for row in rows if row["queue"] == name)


def _read(address: str) -> bytes:
    lines = []
    for name in QUEUES:
        with _opened(address, name) as queue:
            for job in queue.kept():
                lines.append(orjson.dumps({"queue": name, "job": asdict(job)}, option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)


@contextmanager
def _opened(address: str, name: str) -> Iterator[JobQueue]:
    queue = JobQueue.open(address, name)
    try:
        yield queue
    except JobError as error:
        raise BackupError(error.item, error.value, error.expected, error.cure) from error
    finally:
        queue.close()
