"""The audit log: it only grows, and any change of a single row is found."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from builders_review import TECHNICIAN, MemoryLabelStudio, a_result, a_service, a_store, an_image
from sqlalchemy import Engine, create_engine, text

from converters.label_studio.controls import Tier
from review_workflow.errors import SettingsError
from review_workflow.review import Event
from review_workflow.store import Store, open_store
from review_workflow.store.audit import AuditAnchor, head, verify
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
    yield from without_triggers(folder)


def without_triggers(folder: Path) -> Iterator[Engine]:
    """The database of a folder, as somebody sees it who may do everything."""
    engine = create_engine(f"sqlite:///{folder / 'review.db'}")
    with engine.begin() as connection:
        for name in connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all():
            connection.execute(text(f"DROP TRIGGER {name}"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The log of four images that were registered and then labelled, without triggers."""
    folder = tmp_path_factory.mktemp("worked")
    studio = MemoryLabelStudio()
    service = a_service(a_store(folder), studio)
    service.register(an_image(number) for number in range(4))
    service.settle()
    for task in studio.open_tasks(Tier.TECHNICIAN):
        studio.annotate(task.task_id, TECHNICIAN.user_id or 0, a_result())
    service.settle()
    yield from without_triggers(folder)


def found_after(engine: Engine, *statements: str, anchors: Sequence[AuditAnchor] = ()) -> list[tuple[int, str]]:
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
        found = [(problem.seq, problem.what) for problem in verify(connection, anchors)]
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


_EARLIER_HEAD = """UPDATE audit_head SET seq = (SELECT MAX(seq) FROM audit),
    digest = (SELECT digest FROM audit ORDER BY seq DESC LIMIT 1)"""


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_tail_cut_off_together_with_the_head_is_found_by_the_states_of_the_images(worked: Engine, cut: int) -> None:
    """Each image has a step of its own in the tail, so the log leaves it in another state than it is in."""
    assert not found_after(worked)
    last = 2 * 4
    found = found_after(worked, f"DELETE FROM audit WHERE seq > {last - cut}", _EARLIER_HEAD)
    assert len(found) == cut and all("but the image is labelled" in what for _, what in found)


def test_a_tail_cut_off_is_found_by_an_anchor_noted_elsewhere(unguarded: Engine) -> None:
    cut = ("DELETE FROM audit WHERE seq > 3", _EARLIER_HEAD)
    with unguarded.connect() as connection:
        anchor = head(connection)
    assert found_after(unguarded, *cut) == []
    assert found_after(unguarded, *cut, anchors=[anchor]) == [(5, "was noted elsewhere and is missing")]
    replaced = AuditAnchor(2, "0" * 64)
    assert found_after(unguarded, anchors=[replaced]) == [(2, "is not what was noted elsewhere")]


@pytest.mark.parametrize("state", ["imported", "approved"])
def test_a_state_that_the_log_does_not_tell_is_found(worked: Engine, state: str) -> None:
    image = an_image(1).image_id
    found = found_after(worked, f"UPDATE reviews SET state = '{state}' WHERE image_id = '{image}'")
    assert found == [(6, f"leaves image {image} labelled, but the image is {state}")]
    gone = found_after(worked, f"DELETE FROM reviews WHERE image_id = '{image}'")
    assert gone == [(6, f"leaves image {image} labelled, but the image is not there")]


def test_a_log_that_grows_while_it_is_verified_has_no_problems(log: Store) -> None:
    with log.at_one_moment() as session:
        assert session.audit_head().seq == 5
        fill(log)
        assert session.verify_audit() == ()
        assert session.audit_head().seq == 5
    assert problems(log) == []


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
