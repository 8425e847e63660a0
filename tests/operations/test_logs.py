"""A log line names the request and never a picture, a token or a patient."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from converters.errors import DatasetError, DesignedError
from dermloop.aws.settings import read_settings as read_aws
from ml_backend.settings import read_settings as read_serving
from review_workflow.settings import read as read_review
from telemetry import logs, request_id
from telemetry.settings import LogFormat, TelemetrySettings, malformed, read

SECRETS = [
    ("Authorization: Token 0123456789abcdef0123456789abcdef01234567", "0123456789abcdef"),
    ("Bearer operator-token-of-sixteen", "operator-token"),
    ("https://clinic:open-sesame@store.example/key", "open-sesame"),
    ("https://store.example/a.jpg?X-Amz-Signature=5f3a9c&X-Amz-Date=1", "5f3a9c"),
    ("/data/local-files/?d=images/meier-anna.jpg", "meier"),
    ("password='hunter2'", "hunter2"),
    ("asked by anna.meier@clinic.example today", "meier"),
    ("patient PAT-00817 withdrew", "00817"),
    ("patient_id=4711", "4711"),
    ("data:image/png;base64,iVBORw0KGgo=", "iVBORw0KGgo"),
    ("A" * 400, "A" * 121),
    ("eyJhbGciOi.eyJzdWIiOiIx.c2ln", "eyJzdWIi"),
]


@pytest.fixture
def written() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter("review", TelemetrySettings(log_format=LogFormat.JSON)))
    logger = logging.getLogger("dermloop.test")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]
    yield logger, stream
    logger.handlers = []


def only_line(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    row: dict[str, Any] = json.loads(line)
    return row


def test_a_line_is_one_json_object_with_the_request_and_the_facts(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = written
    with request_id.bound("request-1234"):
        logger.info("answered", extra=logs.told(route="/predict", status=200))
    row = only_line(stream)
    assert row.pop("time").endswith("+00:00")
    assert row == {
        "level": "INFO",
        "program": "review",
        "logger": "dermloop.test",
        "request_id": "request-1234",
        "message": "answered",
        "route": "/predict",
        "status": 200,
    }


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_what_must_stay_secret_is_left_out(text: str, secret: str, written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = written
    assert secret in text
    logger.warning("failed at %s", text, extra=logs.told(item=text))
    assert secret not in stream.getvalue()


def test_a_librarys_error_is_named_by_kind_and_place_and_ours_with_its_sentence(
    written: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, stream = written
    for error in (ValueError("Meier, born 1950"), DatasetError("row 7", 3, "a number", "Correct it.")):
        try:
            raise error
        except Exception:
            logger.exception("failed")
    foreign, own = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (
        foreign["error"] == "ValueError" and "test_logs.py" in foreign["at"][0] and "Meier" not in json.dumps(foreign)
    )
    assert own["error"].startswith("DatasetError: row 7") and "Correct it." in own["error"]


def test_text_for_people_carries_the_same(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.LogRecord("a.b", logging.INFO, "x.py", 1, "took %d", (3,), None)
    record.__dict__.update(logs.told(state="approved"))
    with request_id.bound("request-1234"):
        line = logs.formatter("review", TelemetrySettings()).format(record)
    assert line.endswith("INFO a.b took 3 state=approved [request-1234]")


@given(st.text())
def test_an_id_that_does_not_fit_is_replaced(given_id: str) -> None:
    taken = request_id.accepted(given_id)
    assert 8 <= len(taken) <= 64 and taken.isascii() and "\n" not in taken
    assert request_id.accepted("request-1234") == "request-1234"


@pytest.mark.parametrize(
    ("name", "value", "sentence", "read"),
    [
        ("DERMLOOP_LOG_FORMAT", "yaml", r"DERMLOOP_LOG_FORMAT: got 'yaml'; expected Input should be 'text' or", read),
        ("DERMLOOP_ML_PORT", "high", r"DERMLOOP_ML_PORT: got 'high'; .* Correct the variable", read_serving),
        ("DERMLOOP_REVIEW_SYNC_SECONDS", "often", "DERMLOOP_REVIEW_SYNC_SECONDS: got 'often'", read_review),
        ("DERMLOOP_AWS_TRAINING_HOURS", "-1", "DERMLOOP_AWS_TRAINING_HOURS: -1; expected", read_aws),
    ],
)
def test_a_malformed_setting_is_named(
    name: str, value: str, sentence: str, read: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(DesignedError, match=sentence):
        read()


def test_a_malformed_setting_that_may_hold_a_secret_is_not_quoted() -> None:
    class Own(BaseSettings):
        database_url: int

    with pytest.raises(ValidationError) as raised:
        Own(database_url="postgresql://anna:open-sesame@db")  # type: ignore[arg-type]
    parts = malformed(raised.value, "OWN_")
    assert parts[:2] == ("OWN_DATABASE_URL", "a malformed value") and "open-sesame" not in str(parts)
