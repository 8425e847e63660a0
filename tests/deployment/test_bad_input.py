"""What goes wrong on a server is one sentence with its cure, and nothing is destroyed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import orjson
import pytest
from builders_serving import bundle
from typer.testing import CliRunner

from dermloop.backup import Places, take
from dermloop.bulk.cli import app as bulk
from dermloop.errors import BackupError, ProvisionError
from dermloop.home import Home
from dermloop.people_table import read_people
from ml_backend.app import create_app
from ml_backend.cli import app as serving
from ml_backend.errors import ServingError
from ml_backend.settings import read_settings

REFUSALS = {"AccessDenied": 403, "ExpiredToken": 400, "InvalidAccessKeyId": 403, "NoSuchBucket": 404}


class Refusing(BaseHTTPRequestHandler):
    """A store that refuses every request with the code that the bucket's name asks for."""

    def do_GET(self) -> None:
        code = next((code for code in REFUSALS if code.lower() in self.path.lower()), "AccessDenied")
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response(REFUSALS[code])
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "token")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredToken"])
def test_a_bucket_that_refuses_is_named_with_the_store_s_own_code(
    code: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERMLOOP_ML_S3_ENDPOINT", store)
    home = Home(tmp_path / "home")
    bundle(home.root)
    before = sorted(home.root.rglob("*"))
    places = Places.of(home, {"DERMLOOP_BACKUP_BUCKETS": code.lower()})
    with pytest.raises(BackupError, match=rf"s3://{code.lower()}/: {code}; .*Check key, bucket and credentials"):
        take(places, tmp_path / "never.tar", lambda sentence: None)
    planned = CliRunner().invoke(bulk, ["plan", "run", f"s3://{code.lower()}/", "--home", str(home.root)])
    assert isinstance(planned.exception, ServingError) and code in str(planned.exception)
    watched = CliRunner().invoke(
        serving, ["watch-bucket", "--bucket", code.lower(), "--once", "--home", str(home.root)]
    )
    assert watched.exit_code == 1 and code in watched.output and "Traceback" not in watched.output
    assert not (tmp_path / "never.tar").exists() and not (home.root / "bulk" / "run").exists()
    assert sorted(path for path in home.root.rglob("*") if path.name != "bulk") == before


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_a_registry_that_refuses_is_named_by_the_backend_which_waits_for_it(
    code: str, store: str, tmp_path: Path
) -> None:
    app = create_app(read_settings(home=tmp_path, registry=f"s3://{code.lower()}/skin", s3_endpoint=store))
    host, client = app.extensions["dermloop"].host, app.test_client()
    host.refresh()
    answer = client.get("/readyz")
    app.extensions["dermloop"].close()
    assert answer.status_code == 503 and code in answer.json["error"]
    assert "Check key, bucket and credentials" in answer.json["error"]


def test_a_model_of_a_newer_version_is_refused_and_the_former_one_serves_on(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    app = create_app(read_settings(home=tmp_path))
    host, client = app.extensions["dermloop"].host, app.test_client()
    host.refresh()
    newer = tmp_path / "models" / "newer-000000000000"
    newer.mkdir()
    header = {**orjson.loads((made.root / "bundle.json").read_bytes()), "format": 2, "version": newer.name}
    (newer / "bundle.json").write_bytes(orjson.dumps(header))
    (tmp_path / "models" / "champion.json").write_bytes(orjson.dumps({"version": newer.name}))
    host.refresh()
    answer = client.get("/readyz")
    app.extensions["dermloop"].close()
    assert (answer.status_code, answer.json["model_version"]) == (200, made.version)
    assert "format 1" in answer.json["error"] and "dermloop" in answer.json["error"]
    assert (newer / "bundle.json").is_file()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name\nx\n", r"expected a column email\. The first line is email,role,first_name,last_name"),
        ("email,role\nx,qa\n", r"line 2: x; expected an e-mail address\. Correct the line"),
        ("email,role\na@b.org,doctor\n", "line 2: doctor; expected one of .*technician"),
        ("email,role\na@b.org,qa\nA@b.org,qa\n", r"a@b.org; expected each person once"),
    ],
)
def test_a_table_of_people_that_cannot_be_read_names_its_line(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ProvisionError, match=sentence):
        read_people(tmp_path / "people.csv")
