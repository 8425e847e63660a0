"""Copies of what lies on S3 while a command works: a killed run's are taken up or cleared by the next one.

They lie in a folder of the user's own below the system's folder for temporary files (`TMPDIR`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from converters import storage
from converters.errors import DatasetError
from converters.output import take_back

_CONVERTED = "converted"
_ENDS = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a conversion reads and writes: source and target themselves, or copies of those that lie on S3.

    `sent_to` is the address that `target` is a copy for, None where it is the target itself.
    """

    source: Path
    target: Path
    sent_to: str | None = None

    def take_up(self) -> None:
        """Makes a target that a killed run converted and did not send the start of this run."""
        if self.sent_to is not None and self.target.is_dir():
            note = self.target.with_name(_CONVERTED)
            take_back(self.target, note.read_text() if note.is_file() else "")

    def deliver(self, fingerprint: str) -> None:
        """Sends a finished target to S3, what is there already not again; raises DatasetError.

        `fingerprint` names the conversion, so that the next run knows the target again if this one is killed now.
        """
        if self.sent_to is not None:
            self.target.with_name(_CONVERTED).write_text(fingerprint)
            storage.put(self.target, self.sent_to)


@contextmanager
def conversion_place(source: str, target: str) -> Iterator[Workplace]:
    """Where a conversion reads and writes, copies from S3 brought; they go when the block ends.

    Raises DatasetError where there is no source, a finished target, or another run of the same conversion.
    """
    if not storage.is_remote(source) and not storage.is_remote(target):
        yield Workplace(Path(source), Path(target))
        return
    sent_to = target if storage.is_remote(target) else None
    if sent_to is not None:
        storage.require_free(target)
    with working_folder(f"{source}\n{target}") as folder:
        place = storage.fetch(source, folder / "in") if storage.is_remote(source) else Path(source)
        yield Workplace(place, folder / "out" if sent_to is not None else Path(target), sent_to)


@contextmanager
def reading_place(source: str) -> Iterator[Path]:
    """Where a source can be read: itself, or a copy of what lies on S3 that goes when the block ends."""
    if not storage.is_remote(source):
        yield Path(source)
        return
    with working_folder(f"{source}\n{os.getpid()}\n{threading.get_ident()}") as folder:
        yield storage.fetch(source, folder / "in")


@contextmanager
def working_folder(key: str) -> Iterator[Path]:
    """The folder of this key, with what a killed run of the same key left there; it goes when the block ends.

    It also goes when the process is told to end (SIGTERM, SIGHUP, Ctrl-C). What killed runs of other keys left goes
    first. Raises DatasetError where another run works in the folder.
    """
    root = _root()
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    if (lock := _held(root / f"{name}.lock")) is None:
        raise DatasetError(key.replace("\n", " → "), "another run", "one run at a time", "Wait until it ends.")
    with _ending_in_order():
        try:
            _clear_others(root, name)
            folder = root / name
            folder.mkdir(exist_ok=True)
            yield folder
        finally:
            _clear(root, name, lock)


def _root() -> Path:
    root = Path(tempfile.gettempdir()) / f"dermloop-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        expected = "a folder of your own: patients' pictures will lie in it"
        raise DatasetError(str(root), "something of another user", expected, "Set TMPDIR to another folder.")
    root.chmod(0o700)
    return root


def _held(path: Path) -> IO[str] | None:
    """The lock file, held by this process until it is closed; None where another run holds it."""
    while True:
        stream = path.open("w")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        except BlockingIOError:
            stream.close()
            return None
        except FileNotFoundError:  # whoever held it cleared it away just now
            pass
        stream.close()


def _clear_others(root: Path, name: str) -> None:
    for other in sorted({path.name.partition(".")[0] for path in root.iterdir()} - {name}):
        if (lock := _held(root / f"{other}.lock")) is not None:
            _clear(root, other, lock)


def _clear(root: Path, name: str, lock: IO[str]) -> None:
    shutil.rmtree(root / name, ignore_errors=True)
    (root / f"{name}.lock").unlink(missing_ok=True)
    lock.close()


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Lets signals that would end the process at once end it as an exception does, its folders cleared."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in _ENDS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
