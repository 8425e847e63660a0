"""What is turned away at the door is on record, in a bounded number of rows whoever knocks, and never with a secret."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from builders_dashboard import a_home, an_app
from builders_review import ANNA, QA, TWO_READERS, MemoryLabelStudio, Ticking, a_service, a_store, prepare
from flask import Flask
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from review_workflow.cli import app as commands
from review_workflow.project_setup import SECRET_HEADER
from review_workflow.refusals import OTHERS, RefusalBook, Refused, caller
from review_workflow.service import ReviewService
from review_workflow.store import Refusal, Store, open_store
from review_workflow.webhooks import Hint

SECRET = {SECRET_HEADER: "hook"}


class Standing:
    """A clock that stays where it was put."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = open_store(database_url)
    prepare(store)
    yield store
    store.close()


@pytest.fixture
def service(tmp_path: Path) -> ReviewService:
    return a_service(a_store(a_home(tmp_path)), MemoryLabelStudio(), TWO_READERS, Ticking())


@pytest.fixture
def app(tmp_path: Path, service: ReviewService) -> Iterator[Flask]:
    app = an_app(tmp_path, service)
    yield app
    app.extensions["background"].stop()


def told(service: ReviewService) -> list[tuple[str, str, str]]:
    service.refusals.flush()
    return sorted({(row.what, row.place, row.source) for row in service.refusals.newest(100)})


def test_a_flood_of_one_caller_is_one_row_a_minute_and_every_request_is_counted(store: Store) -> None:
    clock = Standing()
    book = RefusalBook(store, clock)
    for _ in range(5000):
        book.note(Refused.SECRET, "/webhook", "192.0.2.1")
    clock.now += 60
    book.note(Refused.SECRET, "/webhook", "192.0.2.1")
    book.flush()
    assert [(row.minute, row.count) for row in book.newest(9)] == [("2023-11-14 22:14", 1), ("2023-11-14 22:13", 5000)]


def test_a_flood_of_many_callers_is_a_bounded_number_of_rows(store: Store) -> None:
    book = RefusalBook(store, Standing())
    for number in range(1000):
        book.note(Refused.SECRET, "/webhook", f"192.0.2.{number}")
    book.flush()
    rows = book.all()
    assert len(rows) == 11
    assert {row.source: row.count for row in rows}[OTHERS] == 990


def test_the_first_of_a_minute_is_on_record_at_once(store: Store) -> None:
    RefusalBook(store, Standing()).note(Refused.MALFORMED, "/webhook", "192.0.2.1")
    assert RefusalBook(store, Standing()).newest(1) == (
        Refusal("2023-11-14 22:13", "malformed webhook", "/webhook", "192.0.2.1", 1, "2023-11-14T22:13:20+00:00"),
    )


def test_processes_and_threads_that_refuse_at_the_same_instant_all_count(store: Store) -> None:
    books = [RefusalBook(store, Standing()) for _ in range(4)]

    def knock(book: RefusalBook) -> None:
        for _ in range(20):
            book.note(Refused.SECRET, "/webhook", "192.0.2.1")
        book.flush()

    threads = [threading.Thread(target=knock, args=(book,)) for book in books]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (row,) = books[0].newest(9)
    assert row.count == 80


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM refusals",
        "UPDATE refusals SET count = 1",
        "UPDATE refusals SET count = count + 1, source = 'x'",
        "UPDATE refusals SET last = 'x'",
    ],
)
def test_the_database_refuses_to_forget_a_refusal(store: Store, database_url: str, statement: str) -> None:
    RefusalBook(store, Standing()).note(Refused.SECRET, "/webhook", "192.0.2.1", 7)
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with pytest.raises(DBAPIError, match="only grows"), engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_replacing_a_row_does_not_get_around_that(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    RefusalBook(store, Standing()).note(Refused.SECRET, "/webhook", "192.0.2.1", 7)
    row = "('2023-11-14 22:13', 'wrong secret', '/webhook', '192.0.2.1', 1, '')"
    with pytest.raises(DBAPIError, match="only grows"), store.writing() as session:
        session._connection.exec_driver_sql(f"INSERT OR REPLACE INTO refusals VALUES {row}")
    store.close()


def test_what_a_locked_database_does_not_take_is_counted_later(tmp_path: Path) -> None:
    prepare(open_store(f"sqlite:///{tmp_path / 'review.db'}"))
    store = open_store(f"sqlite:///{tmp_path / 'review.db'}", patience=0.05)
    book = RefusalBook(store, Standing())
    with closing(sqlite3.connect(tmp_path / "review.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        book.note(Refused.SECRET, "/webhook", "192.0.2.1")
        book.note(Refused.SECRET, "/webhook", "192.0.2.1")
    assert book.newest(1) == ()
    book.flush()
    assert [row.count for row in book.newest(9)] == [2]
    store.close()


@pytest.mark.parametrize(
    ("address", "forwarded", "expected"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("127.0.0.1", "198.51.100.7, 192.0.2.1", "192.0.2.1 by way of 127.0.0.1"),
        ("127.0.0.1", "Jane Doe, born 1970", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        (None, None, "unknown address"),
    ],
)
def test_a_caller_is_an_address_and_never_free_text(address: str | None, forwarded: str | None, expected: str) -> None:
    assert caller(address, forwarded) == expected


def test_strangers_and_unreadable_webhooks_are_on_record_without_what_they_sent(
    app: Flask, service: ReviewService
) -> None:
    client = app.test_client()
    for path in ("/webhook", "/api/sync"):
        assert client.post(path, json={}, headers={SECRET_HEADER: "guess-7431"}).status_code == 401
    assert client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.9"}).status_code == 401
    assert client.post("/webhook", data=b'{"patient": "Jane Doe"', headers=SECRET).status_code == 400
    assert told(service) == [
        ("malformed webhook", "/webhook", "127.0.0.1"),
        ("wrong secret", "/api/sync", "127.0.0.1"),
        ("wrong secret", "/metrics", "192.0.2.9 by way of 127.0.0.1"),
        ("wrong secret", "/webhook", "127.0.0.1"),
    ]
    assert service.history() == [] and service.verify_audit() == ()
    kept = str(service.refusals.all())
    assert "guess-7431" not in kept and "Jane" not in kept


def test_a_body_beyond_the_limit_is_a_malformed_webhook(app: Flask, service: ReviewService) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 10
    assert app.test_client().post("/webhook", data=b"x" * 11, headers=SECRET).status_code == 413
    assert told(service) == [("malformed webhook", "/webhook", "127.0.0.1")]


def test_a_foreign_project_is_on_record_however_often_it_calls(service: ReviewService) -> None:
    for task in range(30):
        service.receive(Hint(999, (task,), "ANNOTATION_CREATED"))
    service.follow_hints()
    service.refusals.flush()
    (row,) = service.refusals.newest(9)
    assert (row.what, row.source, row.count) == ("foreign project", "project 999", 30)
    assert service.history() == []


def test_failed_sign_ins_and_pages_of_other_roles_are_on_record(app: Flask, service: ReviewService) -> None:
    client = app.test_client()
    assert client.post("/sign-in", data={"email": QA.email, "password": "guess-7431"}).status_code == 401
    client.post("/sign-in", data={"email": ANNA.email, "password": ANNA.email})
    assert client.get("/audit").status_code == 403
    assert client.get(f"/people/{QA.email}").status_code == 403
    assert told(service) == [
        ("failed sign-in", "/sign-in", "127.0.0.1"),
        ("page of another role", "/audit", ANNA.email),
        ("page of another role", "/people/<email>", ANNA.email),
    ]


def test_the_inspector_finds_them_on_the_audit_page_and_as_files(app: Flask, service: ReviewService) -> None:
    client = app.test_client()
    client.post("/sign-in", data={"email": QA.email, "password": QA.email})
    assert "Nobody was turned away." in client.get("/audit").text
    for _ in range(3):
        app.test_client().post("/webhook", json={})
    service.refusals.flush()
    page = client.get("/audit").text
    assert "wrong secret" in page and "127.0.0.1" in page
    lines = client.get("/refusals.jsonl").text.splitlines()
    assert sum(json.loads(line)["count"] for line in lines) == 3
    assert client.get("/refusals.csv").text.splitlines()[0] == "minute,what,place,source,count,last"
    assert client.get("/refusals.pdf").status_code == 404
    assert app.test_client().get("/refusals.csv").status_code == 302


def test_the_command_shows_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMLOOP_REVIEW_HOME", str(tmp_path))
    assert CliRunner().invoke(commands, ["refusals"]).output == "Nothing was turned away.\n"
    service = a_service(a_store(tmp_path), MemoryLabelStudio(), TWO_READERS, Ticking())
    service.refusals.note(Refused.SECRET, "/webhook", "192.0.2.1", 12)
    service.close()
    shown = CliRunner().invoke(commands, ["refusals"]).output
    assert shown.split() == ["2023-11-14", "22:13", "12", "×", "wrong", "secret", "at", "/webhook,", "192.0.2.1"]
    (row,) = json.loads(CliRunner().invoke(commands, ["refusals", "--json"]).output)["refusals"]
    assert (row["count"], row["what"]) == (12, "wrong secret")
