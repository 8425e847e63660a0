"""The audit log: it only grows, and any change of a single row is found."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from builders_review import a_store
from sqlalchemy import Engine, create_engine, text

from review_workflow.errors import SettingsError
from review_workflow.review import Event
from review_workflow.store import Store, open_store
from review_workflow.store.audit import verify
from review_workflow.store.schema import audit

COLUMNS = [column.name for column in audit.columns]


def fill(store: Store) -> Store:
    for number in range(5):
        with store.writing() as session:
            events = [Event("read", f"reader-{number}@example.org", "dermatologist", reason="ok")]
            session.record_events(f"image-{number}", events, "policy", 1_700_000_000.0 + number)
    return store


@pytest.fixture
def log(tmp_path: Path) -> Store:
    return fill(a_store(tmp_path))


def problems(store: Store) -> list[tuple[int, str]]:
    with store.reading() as session:
        return [(problem.seq, problem.what) for problem in session.verify_audit()]


@pytest.fixture(scope="module")
def unguarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A log of five entries whose triggers somebody removed."""
    folder = tmp_path_factory.mktemp("unguarded")
    fill(a_store(folder))
    engine = create_engine(f"sqlite:///{folder / 'review.db'}")
    with engine.begin() as connection:
        for name in connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all():
            connection.execute(text(f"DROP TRIGGER {name}"))
    yield engine
    engine.dispose()


def found_after(engine: Engine, *statements: str) -> list[tuple[int, str]]:
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
        found = [(problem.seq, problem.what) for problem in verify(connection)]
        connection.rollback()
    return found


def test_a_log_as_it_was_written_has_no_problems(log: Store) -> None:
    assert problems(log) == []


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "seq"])
@pytest.mark.parametrize("seq", range(1, 6))
def test_every_altered_value_is_found(unguarded: Engine, column: str, seq: int) -> None:
    changed = "COALESCE(tier, 0) + 1" if column == "tier" else f"{column} || 'x'"
    assert found_after(unguarded, f"UPDATE audit SET {column} = {changed} WHERE seq = {seq}")


@pytest.mark.parametrize("seq", range(1, 6))
def test_every_removed_row_is_found(unguarded: Engine, seq: int) -> None:
    assert found_after(unguarded, f"DELETE FROM audit WHERE seq = {seq}")


@pytest.mark.parametrize(("one", "other"), [(1, 2), (2, 5), (4, 5)])
def test_two_exchanged_rows_are_found(unguarded: Engine, one: int, other: int) -> None:
    move = "UPDATE audit SET seq = {} WHERE seq = {}"
    assert found_after(unguarded, move.format(-1, one), move.format(one, other), move.format(other, -1))


def test_an_added_row_is_found(unguarded: Engine) -> None:
    names = ", ".join(COLUMNS[1:])
    assert found_after(unguarded, f"INSERT INTO audit (seq, {names}) SELECT 6, {names} FROM audit WHERE seq = 5")


def test_an_emptied_log_is_found(unguarded: Engine) -> None:
    assert found_after(unguarded, "DELETE FROM audit") == [(1, "the end of the log is missing or was replaced")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'somebody' WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 2",
        f"INSERT OR REPLACE INTO audit SELECT {', '.join(COLUMNS)} FROM audit WHERE seq = 2",
        f"REPLACE INTO audit SELECT {', '.join(COLUMNS)} FROM audit WHERE seq = 5",
        "INSERT INTO audit SELECT * FROM audit WHERE seq = 2 ON CONFLICT (seq) DO UPDATE SET actor = 'somebody'",
    ],
)
def test_the_database_itself_refuses_to_change_the_log(log: Store, tmp_path: Path, statement: str) -> None:
    with closing(sqlite3.connect(tmp_path / "review.db")) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    assert problems(log) == []


def test_a_rolled_back_transaction_leaves_no_entry(log: Store) -> None:
    with pytest.raises(RuntimeError), log.writing() as session:
        session.record_events("image", [Event("read", "a", "qa")], "policy", 1.0)
        raise RuntimeError
    assert problems(log) == []
    with log.reading() as session:
        assert len(list(session.history())) == 5


def test_opening_again_changes_nothing(log: Store, tmp_path: Path) -> None:
    again = open_store(f"sqlite:///{tmp_path / 'review.db'}")
    assert problems(again) == []


def test_a_history_is_of_one_image_or_one_person(log: Store) -> None:
    with log.reading() as session:
        assert [entry.seq for entry in session.history(image_id="image-3")] == [4]
        assert [entry.seq for entry in session.history(actor="reader-1@example.org")] == [2]


def test_a_database_that_is_none_is_a_clear_word(tmp_path: Path) -> None:
    (tmp_path / "review.db").write_text("this is no database, only a long enough line of text" * 40)
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        open_store(f"sqlite:///{tmp_path / 'review.db'}")
