"""A picture put into a bucket is read once for each model version, by event or by poller, over real HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import boto3
import pytest
from builders_serving import bundle, encoded, pixels
from flask import Flask
from moto.server import ThreadedMotoServer

from ml_backend import lambda_handlers
from ml_backend.app import create_app
from ml_backend.errors import FetchError, StoreError
from ml_backend.objects import ObjectState, Poller, analyse_object
from ml_backend.s3 import ObjectStore
from ml_backend.settings import read_settings

BUCKET = "skin"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for row in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=row["Key"])
    client.delete_bucket(Bucket=BUCKET)
    client.close()


@pytest.fixture
def app(tmp_path: Path, endpoint: str, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    bundle(tmp_path)
    made = create_app(read_settings(home=tmp_path, s3_endpoint=endpoint, allowed_buckets=BUCKET))
    monkeypatch.setattr(lambda_handlers, "application", lambda: made)
    yield made
    made.extensions["dermloop"].close()


def put(s3: Any, key: str, content: bytes | None = None) -> str:
    content = encoded(pixels()) if content is None else content
    s3.put_object(Bucket=BUCKET, Key=key, Body=content, ContentType="image/png", Metadata={"site": "arm"})
    return key


def record(key: str, bucket: str = BUCKET) -> dict[str, Any]:
    return {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}}}


def message(number: str, *records: dict[str, Any]) -> dict[str, Any]:
    return {"eventSource": "aws:sqs", "messageId": number, "body": json.dumps({"Records": records})}


def test_an_upload_has_its_result_beside_it_and_in_its_metadata(app: Flask, s3: Any) -> None:
    key = put(s3, "clinic a/ümlaut +1.png")
    assert lambda_handlers.on_object_created({"Records": [record(key)]}) == {"batchItemFailures": []}
    stored = json.loads(s3.get_object(Bucket=BUCKET, Key=key + ".dermloop.json")["Body"].read())
    head = s3.head_object(Bucket=BUCKET, Key=key)
    version = app.extensions["dermloop"].host.state.version
    assert stored["lesions"] and stored["model_version"] == head["Metadata"]["dermloop-model-version"] == version
    assert head["Metadata"]["site"] == "arm" and head["ContentType"] == "image/png"
    assert head["Metadata"]["dermloop-recommendation"] == stored["recommendation"]
    answer = app.test_client().get(f"/detect/{key}")
    assert answer.status_code == 200 and answer.json == stored
    assert app.test_client().get("/detect/absent.png").status_code == 404


def test_the_same_event_again_changes_nothing_and_a_new_version_reads_anew(app: Flask, s3: Any, tmp_path: Path) -> None:
    key, event = put(s3, "a.png"), {"Records": [record("a.png")]}
    lambda_handlers.on_object_created(event)
    first = s3.head_object(Bucket=BUCKET, Key=key + ".dermloop.json")["LastModified"]
    lambda_handlers.on_object_created(event)
    assert s3.head_object(Bucket=BUCKET, Key=key + ".dermloop.json")["LastModified"] == first
    version = bundle(tmp_path, name="next").version
    app.extensions["dermloop"].host.refresh()
    lambda_handlers.on_object_created(event)
    assert s3.head_object(Bucket=BUCKET, Key=key)["Metadata"]["dermloop-model-version"] == version


def test_a_batch_reports_the_messages_that_failed_and_only_those(app: Flask, s3: Any) -> None:
    put(s3, "a.png")
    put(s3, "broken.png", b"no picture")
    batch = [
        message("1", record("a.png")),
        message("2", record("a.png", bucket="elsewhere")),
        message("3", record("gone.png")),
        message("4", record("broken.png")),
        {"eventSource": "aws:sqs", "messageId": "5", "body": "not json"},
        message("6", record("notes.txt")),
    ]
    failed = lambda_handlers.on_object_created({"Records": batch})["batchItemFailures"]
    assert [row["itemIdentifier"] for row in failed] == ["2", "5"]
    stored = json.loads(s3.get_object(Bucket=BUCKET, Key="broken.png.dermloop.json")["Body"].read())
    assert "JPEG or PNG" in stored["error"]


def test_a_direct_event_that_failed_is_raised_after_the_others_are_done(app: Flask, s3: Any) -> None:
    put(s3, "a.png")
    with pytest.raises(StoreError, match="elsewhere"):
        lambda_handlers.on_object_created({"Records": [record("x.png", "elsewhere"), record("a.png")]})
    assert s3.head_object(Bucket=BUCKET, Key="a.png.dermloop.json")


def test_the_poller_does_the_same_without_events(app: Flask, s3: Any, endpoint: str) -> None:
    for number in range(3):
        put(s3, f"in/{number}.png")
    put(s3, "other/x.png")
    put(s3, "in/huge.png", encoded(pixels(300, 300)) + b"\0" * 30_000)
    parts = app.extensions["dermloop"]
    poller = Poller(ObjectStore(endpoint), parts.service, BUCKET, "in/", 20_000)
    states = {outcome.key: outcome.state for outcome in poller.once(lambda key, error: pytest.fail(str(error)))}
    assert states == {
        **{f"in/{number}.png": ObjectState.ANALYSED for number in range(3)},
        "in/huge.png": ObjectState.UNREADABLE,
    }
    assert list(poller.once(lambda key, error: pytest.fail(str(error)))) == []


def test_an_object_replaced_meanwhile_is_left_for_another_try(app: Flask, s3: Any, endpoint: str) -> None:
    class Racing(ObjectStore):
        def read(self, bucket: str, key: str, max_bytes: int) -> bytes:
            content = super().read(bucket, key, max_bytes)
            put(s3, key, encoded(pixels(patches=())))
            return content

    put(s3, "a.png")
    with pytest.raises(StoreError):
        analyse_object(Racing(endpoint), app.extensions["dermloop"].service, BUCKET, "a.png", 10**6)
    assert "dermloop-model-version" not in s3.head_object(Bucket=BUCKET, Key="a.png")["Metadata"]


def test_tasks_may_point_into_allowed_buckets_only(app: Flask, s3: Any) -> None:
    put(s3, "a.png")
    source = app.extensions["dermloop"].source
    assert source.fetch(f"s3://{BUCKET}/a.png") == encoded(pixels())
    with pytest.raises(FetchError, match="not listed"):
        source.fetch("s3://elsewhere/a.png")
    with pytest.raises(FetchError, match="NoSuchKey"):
        source.fetch(f"s3://{BUCKET}/absent.png")


@pytest.mark.parametrize("form", [1, 2])
def test_api_gateway_reaches_the_same_routes(app: Flask, form: int) -> None:
    import base64

    from werkzeug.test import EnvironBuilder

    sent = EnvironBuilder(method="POST", data={"image": (io.BytesIO(encoded(pixels())), "p.png")}).get_request()
    body, headers = sent.get_data(), {"content-type": sent.content_type or "", "host": "localhost"}
    event: dict[str, Any] = {"body": base64.b64encode(body).decode(), "isBase64Encoded": True, "headers": headers}
    if form == 1:
        event |= {"httpMethod": "POST", "path": "/predict", "multiValueHeaders": {k: [v] for k, v in headers.items()}}
    else:
        event |= {
            "rawPath": "/v1/analyze",
            "rawQueryString": "heatmap=true",
            "requestContext": {"http": {"method": "POST"}},
        }
    answer = lambda_handlers.on_request(event)
    told = json.loads(base64.b64decode(answer["body"]))
    assert answer["statusCode"] == 200 and told["model_version"].startswith("tiny-")
    assert ("heatmap" in told["results"][0]) if form == 2 else told["lesions"]
