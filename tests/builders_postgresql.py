"""A throw-away PostgreSQL server of the distribution, for the tests that run on both databases."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

_NUMBERS = itertools.count(1)
_OPTIONS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses=127.0.0.1"


class PostgreSQL:
    """A running server; every database of it is new."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port

    def new_database(self) -> str:
        """SQLAlchemy URL of an empty database."""
        name = f"review_{next(_NUMBERS)}"
        _run(
            ["psql", "-q", "-h", str(self._folder), "-p", str(self._port), "postgres", "-c", f"CREATE DATABASE {name}"]
        )
        return f"postgresql://postgres@127.0.0.1:{self._port}/{name}"


@contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """A server with its data in a folder, stopped at the end; skips the test where PostgreSQL is not installed."""
    if shutil.which("pg_ctl") is None and not _binaries():
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    data, port = folder / "data", _free_port()
    folder.chmod(0o777)
    _run(["initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"])
    options = f"{_OPTIONS} -p {port} -k {folder}"
    _run(["pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start"])
    try:
        yield PostgreSQL(folder, port)
    finally:
        _run(["pg_ctl", "-D", str(data), "-m", "immediate", "stop"])


def _run(command: Sequence[str]) -> None:
    program = shutil.which(command[0]) or str(_binaries()[-1] / command[0])
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*user, program, *command[1:]], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _binaries() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
