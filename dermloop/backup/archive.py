"""The archive: one tar file whose last member, `manifest.json`, lists every other one with its size and digest.

A tar without that member is one whose writing was interrupted. It gets its name when it is complete, not before.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import orjson
import psutil

from dermloop.errors import BackupError

MANIFEST = "manifest.json"
FORMAT = 1
_CHUNK = 1 << 20
_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Part:
    """One member: its path in the archive, size in bytes, and SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive holds: when and by which dermloop it was made, its parts, and facts to compare with."""

    created: str
    version: str
    parts: tuple[Part, ...]
    facts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The manifest as JSON."""
        return orjson.dumps({"format": FORMAT, **asdict(self)}, option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, archive: Path, content: bytes) -> Manifest:
        """What `encode` wrote; raises BackupError for another format or broken JSON."""
        try:
            row: dict[str, Any] = orjson.loads(content)
            if (found := row.pop("format")) != FORMAT:
                cure = "Restore it with the dermloop that wrote it, or a newer one."
                raise BackupError(str(archive), f"format {found}", f"format {FORMAT}", cure)
            parts = tuple(Part(**part) for part in row.pop("parts"))
            return cls(parts=parts, notes=tuple(row.pop("notes")), **row)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise BackupError(str(archive), f"{MANIFEST}: {error}", "an archive of dermloop", "Name one.") from error


class Writer:
    """Adds members to an archive that is being written."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.parts: list[Part] = []

    def add(self, path: str, stream: IO[bytes], like: os.stat_result | None = None) -> None:
        """Adds everything that the stream holds, with mode and owner of `like`."""
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        member = tarfile.TarInfo(path)
        member.size, member.mode, member.mtime = size, 0o600, int(time.time())
        if like is not None:
            member.mode, member.mtime = like.st_mode & 0o7777, int(like.st_mtime)
            member.uid, member.gid = like.st_uid, like.st_gid
        digesting = _Digesting(stream)
        self._tar.addfile(member, digesting)
        self.parts.append(Part(path, size, digesting.digest.hexdigest()))


class _Digesting:
    """A stream that keeps the digest of what was read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        content = self._stream.read(size)
        self.digest.update(content)
        return content


@contextmanager
def writing(target: Path) -> Iterator[Writer]:
    """A writer whose archive takes its name when the block ends, readable by its owner only; else nothing is left.

    Removes what writers that were killed left beside the target. Raises BackupError where the target is taken.
    """
    if target.exists():
        raise BackupError(str(target), "there already", "a new file", "Name another one; nothing was replaced.")
    _remove_left_behind(target.parent)
    draft = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
                yield Writer(tar)
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        place, reason = str(error.filename or target), error.strerror or str(error)
        raise BackupError(place, reason, "a place to write to", "Make room, or check rights.") from error
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _remove_left_behind(folder: Path) -> None:
    for path in folder.glob(f".*{_PARTIAL}"):
        process = path.name.split(".")[-3]
        if not process.isdigit() or not psutil.pid_exists(int(process)):
            path.unlink(missing_ok=True)


class Reader:
    """An archive that is complete: it has a manifest, and every member's digest was compared before anything else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._tar = tarfile.open(path)  # noqa: SIM115 - closed by `close`
        except (OSError, tarfile.TarError) as error:
            raise BackupError(str(path), str(error), "a readable archive", "Name another copy.") from error
        try:
            self._members = {member.name: member for member in self._listed()}
            self.manifest = self._read_manifest()
        except BackupError:
            self._tar.close()
            raise

    def _listed(self) -> list[tarfile.TarInfo]:
        try:
            return self._tar.getmembers()
        except (OSError, tarfile.TarError) as error:
            raise BackupError(str(self.path), str(error), "a readable archive", "Name another copy.") from error

    def _read_manifest(self) -> Manifest:
        member = self._members.get(MANIFEST)
        stream = self._tar.extractfile(member) if member else None
        if stream is None:
            cure = "Its writing was interrupted, or it is another program's: name another one."
            raise BackupError(str(self.path), f"no {MANIFEST}", "a complete archive", cure)
        return Manifest.decode(self.path, stream.read())

    def close(self) -> None:
        """Lets go of the file."""
        self._tar.close()

    def require_whole(self) -> None:
        """Raises BackupError naming the first part that is missing, changed, or would leave its folder."""
        for part in self.manifest.parts:
            path = PurePosixPath(part.path)
            if path.is_absolute() or ".." in path.parts:
                raise BackupError(str(self.path), part.path, "paths inside the archive", "Do not restore it.")
            digest = hashlib.sha256()
            with self.open(part) as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
            if digest.hexdigest() != part.sha256:
                raise BackupError(f"{self.path}: {part.path}", "other bytes", "what was written", "Use another copy.")

    @contextmanager
    def open(self, part: Part) -> Iterator[IO[bytes]]:
        """The bytes of a part; raises BackupError where it is missing."""
        member = self._members.get(part.path)
        try:
            stream = self._tar.extractfile(member) if member and member.isreg() else None
        except (OSError, tarfile.TarError) as error:
            item = f"{self.path}: {part.path}"
            raise BackupError(item, str(error), "a readable part", "Use another copy.") from error
        if stream is None:
            raise BackupError(f"{self.path}: {part.path}", "missing", "every part of the manifest", "Use another copy.")
        with stream:
            yield stream

    def rights(self, part: Part) -> tuple[int, int, int]:
        """Mode, user and group that a part's file had."""
        member = self._members[part.path]
        return member.mode, member.uid, member.gid

    def under(self, prefix: str) -> tuple[Part, ...]:
        """The parts below a folder of the archive."""
        return tuple(part for part in self.manifest.parts if part.path.startswith(f"{prefix}/"))
