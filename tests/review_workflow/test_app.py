"""The service over HTTP: webhooks from whoever has the secret, pages for whoever signed in, each role with its own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from builders_dashboard import MemoryJobs, a_disputed_review, a_home, a_job, an_app
from builders_review import ANNA, BEN, ENGINEER, QA, an_image
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from review_workflow.app import create_app
from review_workflow.errors import SettingsError
from review_workflow.people import Person
from review_workflow.project_setup import SECRET_HEADER
from review_workflow.service import ReviewService
from review_workflow.settings import ReviewSettings
from review_workflow.training_jobs import EXTENSION

SECRET = {SECRET_HEADER: "hook"}
PAYLOAD = Path(__file__).parent.parent / "contract" / "webhook_annotation_created.json"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def service(home: Path) -> ReviewService:
    return a_disputed_review(home)


@pytest.fixture(scope="module")
def app(home: Path, service: ReviewService) -> Iterator[Flask]:
    app = an_app(home, service)
    yield app
    app.extensions["background"].stop()


def as_(app: Flask, person: Person) -> FlaskClient:
    client = app.test_client()
    answer = client.post("/sign-in", data={"email": person.email, "password": person.email})
    assert answer.status_code == 302
    return client


def test_a_missing_secret_stops_the_start_with_its_name(home: Path) -> None:
    with pytest.raises(SettingsError, match="DERMLOOP_REVIEW_WEBHOOK_SECRET"):
        create_app(ReviewSettings(home=home, label_studio_token=SecretStr("token")))


def test_the_service_says_that_it_is_up(app: Flask) -> None:
    answer = app.test_client().get("/health")
    assert (answer.status_code, answer.json["status"]) == (200, "UP")  # type: ignore[index]


def test_a_recorded_webhook_is_noted(app: Flask) -> None:
    answer = app.test_client().post("/webhook", data=PAYLOAD.read_bytes(), headers=SECRET)
    assert (answer.status_code, answer.json) == (200, {"status": "noted"})


@pytest.mark.parametrize("header", [{}, {SECRET_HEADER: ""}, {SECRET_HEADER: "wrong"}])
def test_nobody_without_the_secret_is_heard(app: Flask, header: dict[str, str]) -> None:
    for path in ("/webhook", "/api/sync"):
        assert app.test_client().post(path, json={}, headers=header).status_code == 401
    assert app.test_client().get("/api/status", headers=header).status_code == 401


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"action": "X", "project": 7}', b'{"action":"X","project":{"id":"a"}}']
)
def test_a_malformed_webhook_is_refused_with_a_word(app: Flask, body: bytes) -> None:
    answer = app.test_client().post("/webhook", data=body, headers=SECRET)
    assert answer.status_code == 400
    assert "webhook body" in answer.json["error"]  # type: ignore[index]


def test_the_status_is_json(app: Flask) -> None:
    answer = app.test_client().get("/api/status", headers=SECRET)
    assert answer.json["states"] == [["disputed", 1]]  # type: ignore[index]


def test_pages_are_for_people_who_signed_in(app: Flask) -> None:
    client = app.test_client()
    for path in ("/", "/disputed", "/audit", "/audit.csv", f"/images/{an_image().image_id}", f"/people/{QA.email}"):
        assert client.get(path).headers["Location"] == "/sign-in"


def test_a_wrong_password_is_refused(app: Flask) -> None:
    client = app.test_client()
    answer = client.post("/sign-in", data={"email": QA.email, "password": "guess"})
    assert answer.status_code == 401
    assert b"Unknown address or password" in answer.data
    stranger = client.post("/sign-in", data={"email": "x@example.org", "password": "x@example.org"})
    assert stranger.status_code == 401


def test_qa_sees_the_disputed_image_with_everybodys_boxes(app: Flask) -> None:
    page = as_(app, QA).get("/disputed").text
    assert page.count("<rect ") == 3
    assert [page.count(f'class="d{number}"') for number in range(3)] == [1, 1, 1], "boxes on each other stay apart"
    for words in ("technician tech@example.org", "Melanocytic nevus", "dermatologist ben@example.org", "Melanoma"):
        assert words in page


def test_qa_sees_queues_readers_and_agreement(app: Flask) -> None:
    page = as_(app, QA).get("/").text
    for words in ("disputed", "anna@example.org", "images read twice", "No diagnosis."):
        assert words in page


def test_a_dermatologist_sees_only_their_own_numbers_and_no_images(app: Flask) -> None:
    client = as_(app, ANNA)
    page = client.get("/").text
    assert ANNA.email in page and BEN.email not in page
    forbidden = ("/disputed", "/audit", "/audit.jsonl", f"/images/{an_image().image_id}", f"/people/{BEN.email}")
    assert {client.get(path).status_code for path in forbidden} == {403}
    assert client.get(f"/pictures/{an_image().image_id}").status_code == 403
    assert client.get(f"/people/{ANNA.email}").status_code == 200


def test_who_is_sent_away_finds_the_way_back(app: Flask) -> None:
    page = as_(app, ANNA).get("/audit", headers={"Accept": "text/html"})
    assert page.status_code == 403 and "To the overview" in page.text


def test_an_image_names_who_answered(app: Flask) -> None:
    page = as_(app, QA).get(f"/images/{an_image().image_id}").text
    assert "round 1, reader 1: answered, tech@example.org" in page


def test_an_images_history_and_picture_are_on_its_page(app: Flask) -> None:
    client = as_(app, QA)
    page = client.get(f"/images/{an_image().image_id}").text
    assert page.index("registered") < page.index("labelled") < page.rindex("disputed")
    picture = client.get(f"/pictures/{an_image().image_id}")
    assert (picture.status_code, picture.mimetype) == (200, "image/jpeg")
    picture.close()
    assert client.get("/images/unknown", headers={"Accept": "text/html"}).status_code == 404


def test_the_audit_log_is_shown_verified_and_exported(app: Flask, service: ReviewService) -> None:
    client = as_(app, QA)
    assert "Verified: the log is as it was written." in client.get("/audit").text
    rows = list(csv.DictReader(io.StringIO(client.get("/audit.csv").text)))
    lines = [orjson.loads(line) for line in client.get("/audit.jsonl").data.splitlines()]
    assert [row["digest"] for row in rows] == [line["digest"] for line in lines]
    assert len(rows) == len(service.history())


def test_training_shows_runs_promotions_and_the_champion(app: Flask, home: Path) -> None:
    assert "No model was promoted yet." in as_(app, QA).get("/training").text
    run = home / "runs" / "20260101-120000-detector-abc"
    run.mkdir(parents=True)
    (run / "status.json").write_bytes(orjson.dumps({"kind": "detector", "state": "running", "done": 3, "total": 12}))
    broken = home / "runs" / "20260101-110000-classifier-abc"
    broken.mkdir()
    (broken / "status.json").write_text("{")
    models = home / "models"
    models.mkdir()
    (models / "champion.json").write_bytes(orjson.dumps({"version": "loop-123"}))
    row = {
        "change": "promote",
        "version": "loop-123",
        "who": "engineer",
        "when": "2026-01-01T12:00:00",
        "why": "passed",
    }
    (models / "promotions.jsonl").write_bytes(orjson.dumps(row) + b"\n")
    page = as_(app, QA).get("/training").text
    for words in ("In use: <b>loop-123</b>", "25\u00a0%", "running", "cannot be read", "promote · passed"):
        assert words in page
    assert as_(app, ANNA).get("/training").status_code == 403


def test_a_retraining_is_seen_with_its_progress_and_cancelled_on_record(app: Flask, service: ReviewService) -> None:
    jobs = MemoryJobs([a_job("one")])
    app.extensions[EXTENSION] = jobs
    client = as_(app, ENGINEER)
    page = client.get("/training").text
    for words in ('aria-valuenow="24"', "detector: epoch 5 of 20", "52 newly approved labels", "Cancel"):
        assert words in page
    assert client.post("/training/jobs/one/cancel").status_code == 302
    assert jobs.cancelled == ["one"]
    entry = service.history(actor=ENGINEER.email)[-1]
    assert (entry.happened, entry.role, entry.reason) == ("retraining cancelled", "ml-engineer", "one")
    assert client.post("/training/jobs/two/cancel").status_code == 400


def test_a_retraining_is_asked_for_by_those_who_may(app: Flask, service: ReviewService) -> None:
    app.extensions[EXTENSION] = jobs = MemoryJobs()
    client = as_(app, ENGINEER)
    assert "Retrain now" in client.get("/training").text
    assert client.post("/training/jobs").status_code == 302
    assert [job.requested_by for job in jobs.jobs] == [ENGINEER.email]
    assert service.history(actor=ENGINEER.email)[-1].happened == "retraining asked for"
    for person in (QA, ANNA):
        assert as_(app, person).post("/training/jobs").status_code == 403
        assert as_(app, person).post("/training/jobs/new/cancel").status_code == 403
    assert "Cancel" not in as_(app, QA).get("/training").text


def test_without_a_queue_the_page_shows_what_lies_on_disk(app: Flask) -> None:
    kept = app.extensions.pop(EXTENSION)
    page = as_(app, ENGINEER).get("/training")
    assert page.status_code == 200 and "Retrain now" not in page.text
    assert as_(app, ENGINEER).post("/training/jobs").status_code == 404
    app.extensions[EXTENSION] = kept


def test_the_pages_find_their_style(app: Flask) -> None:
    page = app.test_client().get("/sign-in").text
    address = page.split('rel="stylesheet" href="')[1].split('"')[0]
    answer = app.test_client().get(address)
    assert (answer.status_code, answer.mimetype) == (200, "text/css")
    answer.close()


def test_signing_out_ends_the_session(app: Flask) -> None:
    client = as_(app, QA)
    client.post("/sign-out")
    assert client.get("/").headers["Location"] == "/sign-in"


def test_a_name_cannot_become_markup(app: Flask, service: ReviewService) -> None:
    service.put_person(Person("<b>x</b>@example.org", QA.role))
    page = as_(app, QA).get("/people/<b>x<%2Fb>@example.org").text
    assert "<b>x</b>@" not in page
