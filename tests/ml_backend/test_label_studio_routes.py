"""Label Studio's routes answer at once, isolate failures, and follow the champion without a dropped request."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders_serving import bundle, encoded, pixels
from flask import Flask
from flask.testing import FlaskClient

from converters import taxonomy
from converters.annotation import Finding
from converters.geometry import ImageSize
from converters.label_studio import results
from converters.label_studio.config import labelling_config
from converters.label_studio.controls import Tier
from ml_backend.app import create_app
from ml_backend.bundle import set_champion
from ml_backend.composition import Parts
from ml_backend.settings import read_settings

CONFIG = labelling_config(taxonomy.read(), Tier.TECHNICIAN)


def application(home: Path, **settings: Any) -> Iterator[Flask]:
    app = create_app(read_settings(home=home, **settings))
    parts: Parts = app.extensions["dermloop"]
    yield app
    parts.close()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(pixels()))
    (tmp_path / "images" / "empty.png").write_bytes(encoded(pixels(patches=())))
    (tmp_path / "images" / "broken.png").write_bytes(b"no picture")
    yield from application(tmp_path)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def task(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "data": {"image": f"/data/local-files/?d=images/{name}"}}


def body(*tasks: dict[str, Any], **params: Any) -> dict[str, Any]:
    return {"tasks": list(tasks), "project": "1.1700000000", "label_config": CONFIG, "params": params}


def test_before_the_first_promotion_everything_answers_and_nothing_is_predicted(client: FlaskClient) -> None:
    assert client.get("/health").json == {"status": "UP", "model_class": "DermloopModel", "model_version": None}
    assert client.post("/setup", json={"project": "1.1", "schema": CONFIG}).json == {
        "model_version": None,
        "unmatched": [],
    }
    answer = client.post("/predict", json=body(task(1, "a.png")))
    assert answer.status_code == 200 and answer.json["results"] == [[]]
    assert "promote" in answer.json["left_out"][0]["reason"]


def test_a_task_to_be_read_blind_gets_nothing_under_the_current_version(client: FlaskClient, tmp_path: Path) -> None:
    version, blind = bundle(tmp_path).version, task(7, "a.png")
    blind["data"]["blind"] = "blind"
    found, shown = client.post("/predict", json=body(blind, task(8, "a.png"))).json["results"]
    assert found == {"result": [], "score": 0.0, "model_version": version}
    assert shown["result"]


def test_a_prediction_reads_back_as_the_lesion_it_is(client: FlaskClient, tmp_path: Path) -> None:
    version = bundle(tmp_path).version
    (found,) = client.post("/predict", json=body(task(7, "a.png"))).json["results"]
    assert found["model_version"] == version and 0 <= found["score"] <= 1
    read = results.decode(found["result"], ImageSize(160, 120), taxonomy.read(), "task 7")
    assert read.finding is Finding.LESIONS
    assert read.lesions[0].diagnosis in taxonomy.read().codes and read.lesions[0].score == pytest.approx(0.9)
    texts = [row["value"]["text"] for row in found["result"] if row["type"] == "textarea"]
    assert len(texts) == 1 and "%" in texts[0][0]


def test_one_bad_image_costs_the_others_nothing(client: FlaskClient, tmp_path: Path) -> None:
    bundle(tmp_path)
    nowhere, nothing = task(5, "absent.png"), {"id": 6, "data": {"text": "no image"}}
    outside = {"id": 7, "data": {"image": "/data/local-files/?d=../secret.png"}}
    tasks = (task(1, "a.png"), task(2, "broken.png"), task(3, "empty.png"), nowhere, nothing, outside)
    answer = client.post("/predict", json=body(*tasks)).json
    assert [bool(entry) for entry in answer["results"]] == [True, False, True, False, False, False]
    assert answer["results"][2]["result"] == []
    assert [left["item"] for left in answer["left_out"]] == ["task 2", "task 5", "task 6", "task 7"]


def test_drawn_boxes_come_back_read(client: FlaskClient, tmp_path: Path) -> None:
    bundle(tmp_path)
    drawn = {
        "type": "rectanglelabels",
        "original_width": 160,
        "original_height": 120,
        "value": {"x": 12.5, "y": 25, "width": 25, "height": 100 / 3, "rotation": 0},
    }
    (found,) = client.post("/predict", json=body(task(1, "a.png"), context={"result": [drawn]})).json["results"]
    region = found["result"][0]
    assert {key: region["value"][key] for key in ("x", "y")} == {"x": 12.5, "y": 25}
    assert region["value"]["rectanglelabels"][0] in {d.name for d in taxonomy.read().diagnoses}


def test_an_outline_or_a_stroke_is_read_as_the_box_around_it(client: FlaskClient, tmp_path: Path) -> None:
    bundle(tmp_path)
    size = {"original_width": 160, "original_height": 120}
    points = [[12.5, 25.0], [37.5, 25.0], [37.5, 58.0]]
    drawn: list[dict[str, Any]] = [
        {"type": "polygonlabels", **size, "value": {"points": points}},
        {"type": "ellipselabels", **size, "value": {"x": 25, "y": 40, "radiusX": 12, "radiusY": 15}},
        {"type": "rectanglelabels", **size, "value": {"x": "nonsense"}},
        {"type": "choices", "value": {"choices": ["x"]}},
    ]
    (found,) = client.post("/predict", json=body(task(1, "a.png"), context={"result": drawn})).json["results"]
    boxes = [row["value"] for row in found["result"] if row["type"] == "rectanglelabels"]
    assert [(round(box["x"], 1), round(box["width"], 1)) for box in boxes] == [(12.5, 25.0), (13.0, 24.0)]


def test_a_click_on_a_lesion_brings_its_box_and_diagnosis(client: FlaskClient, tmp_path: Path) -> None:
    bundle(tmp_path)
    size = {"original_width": 160, "original_height": 120}
    clicks = [{"type": "keypointlabels", **size, "value": {"x": x, "y": 40, "width": 1}} for x in (25, 90)]
    answer = client.post("/predict", json=body(task(1, "a.png"), context={"result": clicks})).json
    region, text = answer["results"][0]["result"]
    box = {key: round(region["value"][key]) for key in ("x", "y", "width", "height")}
    assert box == pytest.approx({"x": 12, "y": 25, "width": 26, "height": 33}, abs=3)
    assert region["value"]["rectanglelabels"][0] in {d.name for d in taxonomy.read().diagnoses}
    assert region["score"] == pytest.approx(0.9) and "%" in text["value"]["text"][0]
    (left,) = answer["left_out"]
    assert left["item"] == "task 1" and "point (144, 48)" in left["reason"] and "Draw its box" in left["reason"]


def test_a_click_without_a_detector_says_what_to_do(client: FlaskClient, tmp_path: Path) -> None:
    bundle(tmp_path, detector=False)
    click = {"type": "keypointlabels", "original_width": 160, "original_height": 120, "value": {"x": 25, "y": 40}}
    answer = client.post("/predict", json=body(task(1, "a.png"), context={"result": [click]})).json
    assert answer["results"][0]["result"] == [] and "Draw its box" in answer["left_out"][0]["reason"]


def test_time_running_out_is_said_task_by_task(tmp_path: Path) -> None:
    bundle(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(pixels()))
    for app in application(tmp_path, predict_seconds=1e-9):
        answer = app.test_client().post("/predict", json=body(*(task(n, "a.png") for n in range(3)))).json
        assert answer["results"] == [[], [], []] and len(answer["left_out"]) == 3
        assert "preannotate" in answer["left_out"][0]["reason"]


def test_a_promotion_and_a_rollback_are_followed_while_requests_run(app: Flask, tmp_path: Path) -> None:
    first = bundle(tmp_path).version
    second = bundle(tmp_path, name="next", champion=False).version
    host = app.extensions["dermloop"].host
    answers: list[tuple[int, set[str]]] = []
    stop = threading.Event()

    def ask() -> None:
        client = app.test_client()
        while not stop.is_set():
            answer = client.post("/predict", json=body(*(task(n, "a.png") for n in range(10))))
            answers.append((answer.status_code, {entry["model_version"] for entry in answer.json["results"]}))

    assert host.wait_for(first)
    callers = [threading.Thread(target=ask) for _ in range(3)]
    for caller in callers:
        caller.start()
    for version in (second, first):
        set_champion(tmp_path / "models", version)
        assert host.wait_for(version, 2.0)
    stop.set()
    for caller in callers:
        caller.join()
    assert {status for status, _ in answers} == {200}
    assert all(len(versions) == 1 for _, versions in answers)


def test_a_broken_champion_leaves_the_former_one_serving(app: Flask, tmp_path: Path) -> None:
    good = bundle(tmp_path).version
    host = app.extensions["dermloop"].host
    assert host.wait_for(good)
    bad = bundle(tmp_path, name="bad", champion=False)
    bad.detector_path.write_bytes(b"changed")
    set_champion(tmp_path / "models", bad.version)
    host.refresh()
    assert host.state.version == good and "detector.onnx" in (host.state.error or "")


def test_start_training_is_queued_once_and_visible(client: FlaskClient) -> None:
    event = {"action": "START_TRAINING", "project": {"id": 3}}
    first = client.post("/webhook", json=event)
    again = client.post("/webhook", json=event)
    assert first.status_code == 201 and first.json["job"] == again.json["job"]
    assert client.post("/job_status", json={"job": first.json["job"]}).json["job_status"] == "queued"
    assert client.post("/job_status", json={"job": "unknown"}).status_code == 410
    newest = client.post("/job_status", json={"job": "newest"}).json
    assert newest["created_at"] and newest["summary"].startswith("has waited for a worker since 20")
    assert client.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 200


def test_the_newest_training_is_told_in_a_sentence(client: FlaskClient, app: Flask) -> None:
    assert client.post("/job_status", json={"job": "newest"}).status_code == 410
    queue = app.extensions["dermloop"].queue
    queue.register("retrain", lambda handle: "the gate refused: sensitivity")
    client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 3}})
    queue.work_off()
    told = client.post("/job_status", json={"job": "newest"}).json
    assert told["job_status"] == "finished"
    moment = told["ended_at"][:16].replace("T", " ")
    assert told["summary"] == f"was done at {moment} UTC: the gate refused: sensitivity"


def test_versions_lists_the_bundles(client: FlaskClient, tmp_path: Path) -> None:
    version = bundle(tmp_path).version
    assert client.get("/versions").json["versions"] == [version]


@pytest.mark.parametrize("wrong", ["null", "[]", '{"tasks": 3}', '{"tasks": ["x"]}', "{", ""])
def test_a_malformed_body_is_the_callers_fault(client: FlaskClient, wrong: str) -> None:
    answer = client.post("/predict", data=wrong, content_type="application/json")
    assert answer.status_code == 400 and "expected" in answer.json["error"]


def test_with_a_login_only_health_is_open(tmp_path: Path) -> None:
    for app in application(tmp_path, host="0.0.0.0", basic_auth_user="ls", basic_auth_password="s3cret"):
        client = app.test_client()
        assert client.get("/health").status_code == 200
        assert client.get("/versions").status_code == 401
        for login, status in (("ls:s3cret", 200), ("ls:wrong", 401), ("other:s3cret", 401)):
            header = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
            assert client.get("/versions", headers=header).status_code == status
