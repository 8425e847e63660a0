"""The database on SQLite and on PostgreSQL: one transaction, version checks, leases, an audit log that only grows."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from builders_review import (
    ANNA,
    EVERYBODY,
    NO_SECOND_READER,
    QA,
    TECHNICIAN,
    MemoryLabelStudio,
    a_lesion,
    a_result,
    a_service,
    an_image,
    prepare,
)
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from converters.label_studio.controls import Tier
from review_workflow.decisions import register
from review_workflow.errors import ConflictError, SettingsError, StoreError
from review_workflow.review import Event
from review_workflow.store import Store, open_store
from review_workflow.store.schema import metadata


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = open_store(database_url)
    prepare(store)
    yield store
    store.close()


def with_image(store: Store) -> str:
    record = an_image()
    decision = register(record.image_id)
    with store.writing() as session:
        session.add_image(record, 1.0)
        session.create(decision.review, decision.events, "policy", 1.0)
    return record.image_id


def test_an_image_goes_through_all_tiers(store: Store) -> None:
    studio = MemoryLabelStudio()
    service = a_service(store, studio, NO_SECOND_READER)
    service.register([an_image()])
    for tier, person, verdict in (
        (Tier.TECHNICIAN, TECHNICIAN, None),
        (Tier.DERMATOLOGIST, ANNA, "Accept"),
        (Tier.QA, QA, "Approve"),
    ):
        service.settle()
        (task,) = studio.open_tasks(tier)
        studio.annotate(task.task_id, person.user_id or 0, a_result([a_lesion("mel")], verdict))
    service.settle()
    assert service.states() == {"approved": 1}
    assert service.verify_audit() == ()


def test_what_is_stored_is_read_back_equal(store: Store) -> None:
    image_id = with_image(store)
    with store.reading() as session:
        assert session.review(image_id) == register(image_id).review
        assert session.record(image_id) == an_image()
        assert session.people() == tuple(sorted(EVERYBODY, key=lambda person: person.email))


def test_a_file_name_is_known_by_all_of_it(store: Store) -> None:
    with_image(store)
    with store.reading() as session:
        assert [session.is_name_taken(name) for name in ("0.jpg", "_.jpg", "%", "jpg", "1.jpg")] == [True] + [False] * 4


def test_of_two_changes_of_the_same_review_the_second_is_refused(store: Store) -> None:
    image_id = with_image(store)
    with store.reading() as session:
        seen = session.review(image_id)
    with store.writing() as session:
        session.save(seen, replace(seen, revision=2), [], "policy", 2.0)
    with pytest.raises(ConflictError, match="the newest version"), store.writing() as session:
        session.save(seen, replace(seen, revision=3), [Event("read", "a", "qa")], "policy", 3.0)
    with store.reading() as session:
        assert session.review(image_id).revision == 2
        assert [entry.happened for entry in session.history()] == ["registered"]


def test_writers_at_the_same_instant_leave_an_intact_audit_log(store: Store) -> None:
    def write(number: int) -> None:
        for _ in range(10):
            with store.writing() as session:
                session.record_events("image", [Event("read", f"reader-{number}", "qa")], "policy", 1.0)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as session:
        assert session.verify_audit() == ()
        assert len(list(session.history())) == 40


def test_only_one_at_a_time_holds_a_lease(store: Store) -> None:
    with store.writing() as session:
        assert session.take_lease("sync", "one", 100.0, 60.0)
        assert not session.take_lease("sync", "two", 150.0, 60.0)
        assert session.take_lease("sync", "one", 150.0, 60.0)
        assert session.take_lease("sync", "two", 211.0, 60.0)
        session.give_lease("sync", "two")
        assert session.lease_holder("sync") is None


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"])
def test_the_database_refuses_to_change_the_audit_log(store: Store, database_url: str, statement: str) -> None:
    with_image(store)
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with pytest.raises(DBAPIError, match="only grows"), engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_the_migrated_database_has_the_declared_shape(store: Store, database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    found = {name: {c["name"] for c in inspect(engine).get_columns(name)} for name in inspect(engine).get_table_names()}
    engine.dispose()
    found.pop("alembic_version")
    assert found == {table.name: {c.name for c in table.columns} for table in metadata.sorted_tables}


def test_several_programs_may_open_a_new_database_at_once(database_url: str) -> None:
    failures: list[Exception] = []

    def opening() -> None:
        try:
            open_store(database_url).close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test tells
            failures.append(error)

    threads = [threading.Thread(target=opening) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_who_only_looks_neither_waits_for_a_writer_nor_holds_one_up(store: Store) -> None:
    with store.writing() as writer:
        writer.put_fact("name", "new")
        for looking in (store.reading, store.at_one_moment):
            with looking() as session:
                assert session.fact("name") is None
    for looking in (store.reading, store.at_one_moment):
        with looking() as session:
            before = session.fact("name")
            with store.writing() as writer:
                writer.put_fact("name", f"{before}er")
            assert session.fact("name") == (before if looking == store.at_one_moment else f"{before}er")


def test_a_locked_database_is_a_clear_word_and_keeps_nothing(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'review.db'}", patience=0.05)
    with closing(sqlite3.connect(tmp_path / "review.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"), store.writing() as session:
            session.put_fact("name", "value")
    with store.reading() as session:
        assert session.fact("name") is None
    store.close()


def test_a_full_database_is_a_clear_word_and_keeps_nothing(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'review.db'}")
    with pytest.raises(StoreError, match="full"), store.writing() as session:
        session._connection.exec_driver_sql("PRAGMA max_page_count = 10")
        session.put_fact("name", "x" * 1_000_000)
    with store.reading() as session:
        assert session.fact("name") is None
    store.close()


def test_takers_of_a_lease_at_the_same_instant_are_told_apart(store: Store) -> None:
    winners: list[int] = []

    def take(number: int) -> None:
        with store.writing() as session:
            if session.take_lease("sync", str(number), 100.0, 60.0):
                winners.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1


@pytest.mark.parametrize("url", ["nonsense", "oracle://somewhere/db", "postgresql://nobody@127.0.0.1:1/none"])
def test_an_unusable_address_is_a_clear_word(url: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        open_store(url)
