"""A database of the first revision, with answers and an audit log, comes through all migrations whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from builders_review import QA, TWO_READERS, MemoryLabelStudio, a_service, an_image
from sqlalchemy import create_engine, insert, inspect, select, text

from converters.label_studio.controls import Tier
from review_workflow.service import ReviewService
from review_workflow.store import open_store
from review_workflow.store.schema import metadata

DUMP = Path(__file__).parent.parent / "contract" / "review_0001.sql"
"""Written by the first revision's own code: one image approved, one disputed, one labelled, one untouched."""

MIGRATIONS = Path(__file__).parents[2] / "review_workflow" / "store" / "migrations"
_TRIGGER = (
    "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION"
)
_FUNCTION = (
    "CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'the audit log only grows'; END $$"
)


def newest() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def first_sqlite(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(DUMP.read_text(encoding="utf-8"))
    return f"sqlite:///{path}"


def first_postgresql(url: str, folder: Path) -> None:
    """The same rows in PostgreSQL, in the tables that the first revision had."""
    source = create_engine(first_sqlite(folder / "source.db"))
    target = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    tables = [metadata.tables[name] for name in inspect(source).get_table_names() if name in metadata.tables]
    with source.connect() as old, target.begin() as new:
        metadata.create_all(new, tables=tables)
        for table in tables:
            columns = [table.c[c["name"]] for c in inspect(source).get_columns(table.name)]
            if rows := [dict(row) for row in old.execute(select(*columns)).mappings()]:
                new.execute(insert(table), rows)
        new.execute(text(_FUNCTION))
        new.execute(text(f"{_TRIGGER} audit_only_grows()"))
        new.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
        new.execute(text("INSERT INTO alembic_version VALUES ('0001')"))
    source.dispose()
    target.dispose()


@pytest.fixture
def url(database_url: str, tmp_path: Path) -> str:
    if database_url.startswith("sqlite"):
        return first_sqlite(tmp_path / "old.db")
    first_postgresql(database_url, tmp_path)
    return database_url


def opened(url: str) -> ReviewService:
    return a_service(open_store(url), MemoryLabelStudio(), TWO_READERS)


def test_states_answers_and_the_audit_log_survive_the_upgrade(url: str) -> None:
    service = opened(url)
    assert service.states() == {"approved": 1, "disputed": 1, "labelled": 1, "imported": 1}
    assert list(service.verify_audit()) == []
    ((record, annotations),) = service.approved()
    assert record == an_image(0)
    assert [lesion.diagnosis for lesion in annotations[0].lesions] == ["mel"]
    assert len(service.history()) == 14 and len(service.people()) == 6
    service.close()


def test_work_goes_on_after_the_upgrade_and_a_second_opening_changes_nothing(url: str) -> None:
    service = opened(url)
    assert service.register([an_image(9)]) == 1
    service.send_back(an_image(1).image_id, QA, Tier.TECHNICIAN, "look again at the border")
    assert service.states()["sent back"] == 1
    service.close()
    again = opened(url)
    assert again.states()["imported"] == 2 and list(again.verify_audit()) == []
    again.close()


def test_the_upgraded_database_has_the_shape_of_a_new_one(url: str) -> None:
    opened(url).close()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        shape = {name: {c["name"] for c in inspect(engine).get_columns(name)} for name in metadata.tables}
    engine.dispose()
    assert version == newest()
    assert shape == {name: set(table.columns.keys()) for name, table in metadata.tables.items()}
