"""PostgreSQL's databases: dumped and given back by its own programs; the one door to psycopg."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from dermloop.errors import BackupError

if TYPE_CHECKING:
    import psycopg

_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_HEAD = "SELECT seq || ' ' || digest FROM audit_head"


@dataclass(frozen=True, slots=True)
class Server:
    """How a database is reached; the password travels in the environment, never in a command line."""

    shown: str
    environment: dict[str, str]

    @classmethod
    def of(cls, url: str) -> Server:
        """The server of a `postgresql://` URL, with or without a driver's name in it."""
        parts = urlsplit(url)
        name = unquote(parts.path.lstrip("/"))
        given = {
            "PGHOST": parts.hostname or "127.0.0.1",
            "PGPORT": str(parts.port or 5432),
            "PGDATABASE": name,
            "PGUSER": unquote(parts.username or "postgres"),
            "PGPASSWORD": unquote(parts.password or ""),
            "PGCONNECT_TIMEOUT": "10",
        }
        return cls(f"database {name} on {given['PGHOST']}", given)


def dump(url: str, target: Path) -> str | None:
    """Leaves a dump of one moment; answers the last audit entry of that moment, None where there is no audit log.

    Raises BackupError where the server, its login or pg_dump is missing.
    """
    server = Server.of(url)
    with _connected(server) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        moment = _one(connection, "SELECT pg_export_snapshot()")
        has_log = _one(connection, "SELECT to_regclass('public.audit_head') IS NOT NULL")
        head = _one(connection, _HEAD) if has_log else None
        _run(server, ("pg_dump", "--format=custom", f"--snapshot={moment}", f"--file={target}"))
    return str(head) if head else None


def is_empty(url: str) -> bool:
    """Whether the database has no table; raises BackupError where it cannot be reached."""
    with _connected(Server.of(url)) as connection:
        query = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
        return int(_one(connection, query)) == 0


def require_unused(url: str) -> None:
    """Raises BackupError where another program is connected to the database."""
    server = Server.of(url)
    with _connected(server) as connection:
        if count := int(_one(connection, _OTHERS)):
            cure = "Stop the programs that use it, then run it again; nothing was changed."
            raise BackupError(server.shown, f"{count} other connections", "none", cure)


def give_back(url: str, dumped: Path) -> None:
    """Replaces the database's content by a dump, in one transaction: all of it or nothing; raises BackupError."""
    options = ("--no-owner", "--clean", "--if-exists", "--single-transaction", "--exit-on-error")
    server = Server.of(url)
    _run(server, ("pg_restore", *options, f"--dbname={server.environment['PGDATABASE']}", str(dumped)))


@contextmanager
def _connected(server: Server) -> Iterator[psycopg.Connection[Any]]:
    try:
        import psycopg
    except ModuleNotFoundError as error:
        cure = "pip install 'dermloop[postgresql]'"
        raise BackupError("psycopg", "not installed", "PostgreSQL's driver", cure) from error
    given = server.environment
    try:
        connection = psycopg.connect(
            host=given["PGHOST"],
            port=given["PGPORT"],
            dbname=given["PGDATABASE"],
            user=given["PGUSER"],
            password=given["PGPASSWORD"],
            connect_timeout=10,
            autocommit=True,
        )
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BackupError(server.shown, reason, "a server that lets us in", "Start it, or correct the URL.") from error
    try:
        yield connection
    finally:
        connection.close()


def _one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def _run(server: Server, command: Sequence[str]) -> None:
    program = shutil.which(command[0]) or _distribution(command[0])
    environment = {**os.environ, **server.environment}
    done = subprocess.run([program, *command[1:]], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in words if "error" in line.lower()), words[-1] if words else "no reason given")
        raise BackupError(server.shown, reason, f"{command[0]} to succeed", _cure(reason))


def _cure(reason: str) -> str:
    if "version" in reason:
        return "Install PostgreSQL's client programs of the server's version."
    return "Nothing was changed; mend that and run it again."


def _distribution(program: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    if not found:
        cure = "Install PostgreSQL's client programs (Debian: apt-get install postgresql-client)."
        raise BackupError(program, "not installed", "PostgreSQL's client programs", cure)
    return str(found[-1])
