"""Opening the review database: SQLite in WAL mode by default, PostgreSQL by URL, migrated to the newest shape."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from review_workflow.errors import SettingsError, StoreError
from review_workflow.store.session import Session

_MIGRATION_LOCK = 7_301_946
_LOOKING = "only_looking"


class Store:
    """The review database; every use is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that is committed when the block ends and rolled back when it raises."""
        with _named_failures(), self._engine.begin() as connection:
            yield Session(connection)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A connection for reading only; it never waits for a writer on SQLite."""
        with _named_failures(), self._engine.connect() as connection:
            yield Session(connection.execution_options(isolation_level="AUTOCOMMIT"))

    @contextmanager
    def at_one_moment(self) -> Iterator[Session]:
        """A connection whose reads all see the database as it is at the first of them, whoever writes meanwhile."""
        level = "REPEATABLE READ" if self.dialect == "postgresql" else "SERIALIZABLE"
        with _named_failures(), self._engine.connect() as connection:
            yield Session(connection.execution_options(isolation_level=level, **{_LOOKING: True}))

    def close(self) -> None:
        """Gives all connections back."""
        self._engine.dispose()

    @property
    def dialect(self) -> str:
        """The database's kind: sqlite or postgresql."""
        return self._engine.dialect.name


@contextmanager
def _named_failures() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        reason = str(error.orig).splitlines()[0]
        raise StoreError(
            "database", reason, "a database that takes writes", "Free it, or make room; then again."
        ) from error


def open_store(url: str, patience: float = 30.0) -> Store:
    """The database at a SQLAlchemy URL, created and migrated where needed; raises SettingsError for an unusable one.

    `patience` is how many seconds a writer waits for another one on SQLite.
    """
    try:
        engine = _engine(url, patience)
        _migrate(engine)
    except (ArgumentError, DatabaseError, ModuleNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError("DATABASE_URL", reason, "a reachable SQLite or PostgreSQL", "Correct the URL.") from error
    return Store(engine)


def _engine(url: str, patience: float) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": patience}, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin)
        return engine
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(parsed, pool_pre_ping=True, hide_parameters=True)


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "recursive_triggers=ON", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """Writers queue at the start instead of failing at the end; who only looks takes no lock."""
    options = connection.get_execution_options()
    if options.get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN" if options.get(_LOOKING) else "BEGIN IMMEDIATE")


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(resources.files("review_workflow.store") / "migrations"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
