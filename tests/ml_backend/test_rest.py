"""Programs upload pictures and get readings; roles, limits and bad input end in a reason, never in a crash."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders_serving import bundle, encoded, pixels
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from converters.geometry import ImageSize
from converters.taxonomy import Target
from ml_backend import answers
from ml_backend.app import create_app
from ml_backend.errors import SettingsError
from ml_backend.images import decode
from ml_backend.pipeline import ImagePrediction, Pipeline
from ml_backend.settings import read_settings

READER, OPERATOR = "reader-token-0123456789", "operator-token-0123456789"


def application(home: Path, **settings: Any) -> Iterator[Flask]:
    app = create_app(read_settings(home=home, **settings))
    yield app
    app.extensions["dermloop"].close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    bundle(tmp_path)
    for app in application(tmp_path):
        yield app.test_client()


def upload(client: FlaskClient, path: str, *contents: bytes, **headers: str) -> TestResponse:
    files = [(io.BytesIO(content), f"p{number}.png") for number, content in enumerate(contents)]
    return client.post(path, data={"image": files}, content_type="multipart/form-data", headers=headers)


def test_an_upload_is_read(client: FlaskClient, tmp_path: Path) -> None:
    answer = upload(client, "/predict", encoded(pixels())).json
    assert set(answer) == {
        "predictions", "top_prediction", "severity", "lesions", "recommendation", "model_version", "disclaimer",
    }  # fmt: skip
    assert len(answer["predictions"]) == 3 and set(answer["predictions"][0]) == {"class", "confidence", "label"}
    shares = [row["confidence"] for row in answer["predictions"]]
    assert shares == sorted(shares, reverse=True) and answer["predictions"][0]["class"] == answer["top_prediction"]
    (lesion,) = answer["lesions"]
    assert np.allclose(lesion["box"], [20, 30, 60, 70], atol=3)
    assert sum(lesion["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert lesion["malignant"] == pytest.approx(
        sum(lesion["probabilities"][c] for c in ("mel", "bcc", "akiec")), abs=1e-5
    )


def test_many_pictures_are_read_together_and_a_bad_one_stands_alone(client: FlaskClient) -> None:
    answer = upload(client, "/v1/analyze", encoded(pixels()), b"nothing", encoded(pixels(patches=())))
    good, bad, empty = answer.json["results"]
    assert answer.status_code == 200 and "JPEG or PNG" in bad["error"] and bad["item"] == "image 2"
    assert good["lesions"] and good["width"] == 160
    assert empty["lesions"] == [] and empty["recommendation"] == answers.Recommendation.NOTHING.value


def test_the_heat_map_lies_on_the_lesion(client: FlaskClient) -> None:
    content = encoded(pixels(320, 240, ((40, 60, 120, 140),)))
    (result,) = upload(client, "/v1/analyze?heatmap=true", content).json["results"]
    kind, _, data = result["heatmap"].partition(",")
    heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
    changed = np.abs(heat - pixels(320, 240, ((40, 60, 120, 140),)).astype(int)).max(axis=2) > 25
    assert kind == "data:image/jpeg;base64" and heat.shape == (240, 320, 3)
    assert changed[60:140, 40:120].mean() > 0.5 and changed[:, 200:].mean() < 0.01


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 422), (b"GIF89a", 422), (encoded(pixels())[:200], 422), (encoded(pixels(), "GIF"), 422)],
)
def test_what_is_no_picture_is_refused_with_a_reason(client: FlaskClient, content: bytes, status: int) -> None:
    answer = upload(client, "/predict", content)
    assert answer.status_code == status and "image 1" in answer.json["error"]


def test_an_animated_picture_is_refused(client: FlaskClient) -> None:
    frames = [Image.fromarray(pixels()), Image.fromarray(pixels(patches=()))]
    content = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert "2 frames" in upload(client, "/predict", content).json["error"]


def test_limits_hold(tmp_path: Path) -> None:
    bundle(tmp_path)
    for app in application(tmp_path, max_bytes=5_000, max_pixels=40_000):
        client = app.test_client()
        noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
        assert "at most 5000" in upload(client, "/predict", encoded(noise)).json["error"]
        assert "at most 40000 pixels" in upload(client, "/predict", encoded(pixels(400, 400))).json["error"]
        assert upload(client, "/predict", b"x" * 100_000).status_code == 413


def test_a_body_without_a_picture_is_the_callers_fault(client: FlaskClient) -> None:
    for path in ("/predict", "/v1/analyze"):
        answer = client.post(path, data={"other": "x"}, content_type="multipart/form-data")
        assert answer.status_code == 400 and "`image`" in answer.json["error"]
    assert upload(client, "/predict", encoded(pixels()), encoded(pixels())).status_code == 400
    assert client.get("/nowhere").status_code == 404 and client.get("/predict").status_code == 405


@pytest.mark.parametrize("kind", ["image/jpeg", "application/x-www-form-urlencoded", "text/plain", ""])
def test_a_body_of_another_kind_is_told_which_are_read(client: FlaskClient, kind: str) -> None:
    answer = client.post("/predict", data=encoded(pixels(), "JPEG"), content_type=kind)
    assert answer.status_code == 415 and "multipart/form-data" in answer.json["error"]


def test_roles_open_their_own_doors_only(tmp_path: Path) -> None:
    bundle(tmp_path)
    given = {"tokens": f"reader:{READER},operator:{OPERATOR}", "host": "0.0.0.0"}
    for app in application(tmp_path, basic_auth_user="ls", basic_auth_password="s3cret", **given):
        client = app.test_client()
        basic = "Basic " + base64.b64encode(b"ls:s3cret").decode()
        expected = {
            None: {"/healthz": 200, "/": 200, "/v1/models": 401, "/metrics": 401, "/versions": 401},
            f"Bearer {READER}": {"/v1/models": 200, "/metrics": 403, "/versions": 403},
            f"Bearer {OPERATOR}": {"/v1/models": 200, "/metrics": 200, "/versions": 200},
            basic: {"/v1/models": 200, "/metrics": 403, "/versions": 200},
            "Bearer wrong": {"/v1/models": 401},
            "Bearer": {"/v1/models": 401},
            "Nonsense x": {"/v1/models": 401},
        }
        for header, paths in expected.items():
            for path, status in paths.items():
                headers = {"Authorization": header} if header else {}
                assert client.get(path, headers=headers).status_code == status, (header, path)


def test_open_mode_ends_at_this_machine(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="DERMLOOP_ML_HOST"):
        read_settings(home=tmp_path, host="0.0.0.0")
    with pytest.raises(SettingsError, match="DERMLOOP_ML_BASIC_AUTH_PASSWORD"):
        read_settings(home=tmp_path, basic_auth_user="ls")
    for app in application(tmp_path):
        client = app.test_client()
        assert client.get("/v1/models", headers={"Host": "rebound.example"}).status_code == 403
        assert client.get("/v1/models", headers={"Host": "127.0.0.1:9090"}).status_code == 200


def test_a_short_or_unknown_token_stops_the_start_without_showing_it(tmp_path: Path) -> None:
    for wrong in ("reader:short", "king:0123456789abcdef", "0123456789abcdef"):
        with pytest.raises(SettingsError, match="DERMLOOP_ML_TOKENS") as raised:
            next(application(tmp_path, tokens=wrong))
        assert wrong not in str(raised.value)


def test_readiness_and_metrics_follow_the_champion(tmp_path: Path) -> None:
    for app in application(tmp_path):
        client = app.test_client()
        assert client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200
        assert upload(client, "/predict", encoded(pixels())).status_code == 503
        version = bundle(tmp_path).version
        upload(client, "/predict", encoded(pixels()))
        assert client.get("/readyz").json["model_version"] == version
        page = client.get("/metrics").text
        assert f'dermloop_model_info{{version="{version}"}} 1.0' in page and "dermloop_ready 1.0" in page
        assert 'dermloop_pictures_total{outcome="analysed"} 1.0' in page


def test_what_a_config_has_no_place_for_is_on_record(client: FlaskClient) -> None:
    config = "<View><Image name='i' value='$i'/></View>"
    told = client.post("/setup", json={"project": "4.1", "schema": config}).json
    assert "no control draws lesions" in told["unmatched"][0]
    assert client.get("/ready").json["unmatched"] == {"4.1": told["unmatched"]}


def test_the_page_comes_with_its_parts_and_a_policy(client: FlaskClient) -> None:
    for path in ("/", "/page.css", "/page.js", "/icon.svg"):
        answer = client.get(path)
        assert answer.status_code == 200 and "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "no diagnosis" in client.get("/").text


def test_every_documented_path_is_a_route(client: FlaskClient) -> None:
    documented = client.get("/openapi.json").json["paths"]
    served = {str(rule).replace("<path:", "{").replace(">", "}") for rule in client.application.url_map.iter_rules()}
    assert set(documented) <= served


@pytest.mark.parametrize(
    ("target", "operating_point", "said"),
    [
        (Target.DIAGNOSIS, 0.0, answers.Recommendation.EXAMINE),
        (Target.DIAGNOSIS, 1.1, answers.Recommendation.ABSTAINS),
        (Target.SEVERITY, 0.0, answers.Recommendation.EXAMINE),
    ],
)
def test_the_recommendation_follows_the_operating_point(
    tmp_path: Path, target: Target, operating_point: float, said: answers.Recommendation
) -> None:
    written = bundle(tmp_path, target=target, conformal_threshold=0.9999, operating_point=operating_point)
    (prediction,) = Pipeline.open(written).predict([decode(encoded(pixels()), "p")])
    assert answers.recommendation(prediction, written) is said


def test_nothing_found_is_no_all_clear(tmp_path: Path) -> None:
    nothing = ImagePrediction(ImageSize(10, 10), (), 0.0, "v")
    said = answers.recommendation(nothing, bundle(tmp_path))
    assert said is answers.Recommendation.NOTHING and "no proof" in said.value


def test_a_task_carries_a_signed_link_to_its_heat_map(tmp_path: Path) -> None:
    bundle(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(pixels()))
    (tmp_path / "images" / "b.png").write_bytes(encoded(pixels()))
    login = {"basic_auth_user": "ls", "basic_auth_password": "s3cret", "link_secret": "0123456789abcdef"}
    for app in application(tmp_path, public_url="https://ml.example/", **login):
        client = app.test_client()
        task = {"id": 1, "data": {"image": "/data/local-files/?d=images/a.png"}}
        basic = {"Authorization": "Basic " + base64.b64encode(b"ls:s3cret").decode()}
        (entry,) = client.post("/predict", json={"tasks": [task]}, headers=basic).json["results"]
        link = entry["result"][0]["meta"]["text"][0].rsplit(" ", 1)[1]
        assert link.startswith("https://ml.example/v1/overlay?image=")
        shown = client.get(link.removeprefix("https://ml.example"))
        assert shown.mimetype == "image/jpeg" and Image.open(io.BytesIO(shown.data)).size == (160, 120)
        assert client.get(link.removeprefix("https://ml.example").replace("a.png", "b.png")).status_code == 401
        assert client.get("/v1/overlay?image=/data/local-files/?d=images/a.png").status_code == 401
        task["data"]["heatmap"] = link
        (entry,) = client.post("/predict", json={"tasks": [task]}, headers=basic).json["results"]
        assert entry["result"] and all("meta" not in row for row in entry["result"])


def test_a_heat_map_is_drawn_of_allowed_addresses_only(client: FlaskClient) -> None:
    for address in ("", "/etc/passwd", "http://127.0.0.1/", "/data/local-files/?d=../x.png"):
        assert client.get("/v1/overlay", query_string={"image": address}).status_code == 422
