"""SQLite's files: copied through SQLite itself, which gives one moment's content while others write."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from dermloop.errors import BackupError


def snapshot(database: Path, copy: Path) -> None:
    """Leaves a copy of the database as it is at one moment; raises BackupError where it cannot be read."""
    try:
        source = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)
        with closing(source), closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise BackupError(str(database), str(error), "a readable database", "Check the file's rights.") from error


def audit_head(copy: Path) -> str | None:
    """Number and digest of the last audit entry, or None where the database has no audit log."""
    with closing(sqlite3.connect(copy)) as connection:
        try:
            row = connection.execute("SELECT seq, digest FROM audit_head").fetchone()
        except sqlite3.OperationalError:
            return None
    return f"{row[0]} {row[1]}" if row else None
