"""The serving container keeps SageMaker's contract: `/ping`, `/invocations`, one picture or lines of addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import requests
from builders_aws import REGION, moto, signed_in
from builders_endpoint import endpoint
from builders_serving import bundle, encoded, pixels

from ml_backend.sagemaker import create_endpoint, main
from ml_backend.settings import read_settings

BUCKET = "pictures"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("endpoint")
    bundle(place)
    with moto() as server, signed_in(server):
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        for key, body in (
            ("a.png", encoded(pixels())),
            ("b.png", encoded(pixels(patches=()))),
            ("c.png", b"no picture"),
        ):
            s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        s3.close()
        with endpoint(place / "models", BUCKET) as found:
            yield found


def ask(address: str, body: bytes, kind: str) -> requests.Response:
    return requests.post(f"{address}/invocations", data=body, headers={"Content-Type": kind}, timeout=60)


@pytest.mark.parametrize(("form", "kind"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_a_picture_is_answered_with_its_lesions_the_version_and_the_disclaimer(
    address: str, form: str, kind: str
) -> None:
    answer = ask(address, encoded(pixels(), form), kind)
    told = answer.json()
    assert answer.status_code == 200 and len(told["lesions"]) == 1
    assert told["model_version"] == requests.get(f"{address}/ping", timeout=10).json()["model_version"]
    assert "no diagnosis" in told["disclaimer"]


def test_an_address_in_the_bucket_is_read_there(address: str) -> None:
    answer = ask(address, json.dumps({"s3": f"s3://{BUCKET}/a.png"}).encode(), "application/json")
    assert answer.json()["s3"] == f"s3://{BUCKET}/a.png" and len(answer.json()["lesions"]) == 1


def test_lines_are_answered_line_by_line_in_their_order_and_a_bad_one_harms_no_other(address: str) -> None:
    keys = ["b.png", "c.png", "gone.png", "a.png"]
    body = b"".join(json.dumps({"s3": f"s3://{BUCKET}/{key}"}).encode() + b"\n" for key in keys)
    body += b'{"s3": "s3://elsewhere/a.png"}\n'
    answer = ask(address, body, "application/jsonlines")
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["s3"].rpartition("/")[2] for row in rows] == [*keys, "a.png"]
    assert [len(row.get("lesions", ())) for row in rows] == [0, 0, 0, 1, 0]
    assert [row.get("again") for row in rows] == [None, False, False, None, False]


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b"no picture", "image/png", 422, "JPEG or PNG"),
        (b"{}", "application/json", 400, "s3://bucket/key"),
        (b'{"s3": "/etc/passwd"}', "application/json", 400, "Upload the picture"),
        (b"", "text/plain", 400, "image/jpeg"),
        (b'{"s3": "s3://elsewhere/a.png"}', "application/json", 422, "not listed"),
    ],
)
def test_what_cannot_be_answered_says_why(address: str, body: bytes, kind: str, status: int, words: str) -> None:
    answer = ask(address, body, kind)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True)


def test_a_container_without_a_model_is_not_ready_and_says_so(tmp_path: Path) -> None:
    app = create_endpoint(read_settings(models=tmp_path, home=tmp_path))
    client = app.test_client()
    assert client.get("/ping").status_code == 503
    assert client.post("/invocations", data=b"x", content_type="image/png").status_code == 503
    app.extensions["dermloop"].close()


def test_the_container_is_started_to_serve_and_for_nothing_else() -> None:
    with pytest.raises(SystemExit, match="expected \\['serve'\\]"):
        main(["train"])
