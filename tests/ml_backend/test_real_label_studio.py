"""The protocol against a real Label Studio: connecting, retrieving, drawing, training, uploads, both kinds of token."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from builders_serving import bundle, encoded, pixels
from label_studio_page import LabelStudioPage, chromium
from moto.server import ThreadedMotoServer
from playwright.sync_api import Browser, expect
from pydantic import SecretStr
from werkzeug.serving import make_server

from converters import taxonomy
from converters.geometry import ImageSize
from converters.label_studio.config import labelling_config
from converters.label_studio.controls import Tier
from dermloop.home import Home
from dermloop.stack.database import ensure_database
from dermloop.stack.programs import Program
from ml_backend.app import create_app
from ml_backend.composition import Parts
from ml_backend.errors import FetchError
from ml_backend.fetch import ImageSource, Reach
from ml_backend.label_studio import LabelStudioClient
from ml_backend.preannotate import preannotate
from ml_backend.s3 import ObjectStore
from ml_backend.settings import read_settings
from review_workflow.gateway import Gateway
from review_workflow.label_studio_actions import install_actions
from review_workflow.presentation import TaskDraft
from review_workflow.settings import ReviewSettings

pytestmark = pytest.mark.e2e
LABEL_STUDIO = Path(__file__).parents[2] / ".venv-label-studio" / "bin" / "label-studio"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
SECRET = "0123456789abcdef"
PASSWORD = "a-long-password"
FOREIGN = """<View><Image name="photo" value="$photo"/>
  <RectangleLabels name="box" toName="photo"><Label value="Lesion"/></RectangleLabels></View>"""


@dataclass(frozen=True)
class Desk:
    """A running Label Studio and a running backend that know each other."""

    label_studio: str
    backend: str
    parts: Parts

    def call(self, method: str, path: str, **sent: Any) -> Any:
        headers = {"Authorization": f"Token {TOKEN}"}
        answer = requests.request(method, f"{self.label_studio}/api/{path}", headers=headers, timeout=60, **sent)
        assert answer.ok, answer.text
        return answer.json() if answer.content else {}

    def project(self, title: str, config: str) -> int:
        project = int(self.call("POST", "projects", json={"title": title, "label_config": config})["id"])
        connection = {"url": self.backend, "title": "dermloop", "project": project, "is_interactive": True}
        assert self.call("POST", "ml", json=connection)["state"] == "CO"
        return project


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An S3 server with one picture in one bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    known = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in known.items():
            environment.setenv(name, value)
        with closing(boto3.client("s3", endpoint_url=address)) as client:
            client.create_bucket(Bucket="skin")
            client.put_object(Bucket="skin", Key="clinic a/arm.png", Body=encoded(pixels()))
        yield address
    server.stop()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, store: str) -> Iterator[Desk]:
    home = tmp_path_factory.mktemp("home")
    bundle(home)
    (home / "images").mkdir()
    (home / "images" / "a.png").write_bytes(encoded(pixels()))
    address = f"http://127.0.0.1:{free_port()}"
    environment = {
        **os.environ,
        "LABEL_STUDIO_BASE_DATA_DIR": str(home / "label-studio"),
        "LABEL_STUDIO_USERNAME": "one@example.org",
        "LABEL_STUDIO_PASSWORD": PASSWORD,
        "LABEL_STUDIO_USER_TOKEN": TOKEN,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "COLLECT_ANALYTICS": "0",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "false",
        "ML_BLOCK_LOCAL_IP": "false",
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "USER_ADDITIONAL_BANNED_SUBNETS": "169.254.0.0/16",
    }
    command = (str(LABEL_STUDIO), "start", "--port", address.rsplit(":", 1)[1], "--no-browser")
    ensure_database(Home.at(home), Program("label-studio", "Label Studio", command, environment), print)
    port = free_port()
    settings = read_settings(
        home=home,
        public_url=f"http://127.0.0.1:{port}",
        link_secret=SECRET,
        label_studio_url=address,
        label_studio_token=TOKEN,
        allowed_hosts=store.removeprefix("http://"),
        allowed_buckets="skin",
        s3_by_label_studio=True,
    )
    install_actions(LABEL_STUDIO.parents[1])
    app = create_app(settings)
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            ready(address, process)
            yield Desk(address, f"http://127.0.0.1:{server.server_port}", app.extensions["dermloop"])
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)
            server.shutdown()
            server.server_close()
            thread.join()
            app.extensions["dermloop"].close()


def ready(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(360):
        try:
            if requests.get(f"{address}/health", timeout=2).ok:
                return
        except requests.RequestException:
            pass
        assert process.poll() is None, "Label Studio ended"
        time.sleep(0.5)
    pytest.fail("Label Studio did not start in three minutes")


def test_opening_a_task_brings_the_prediction_in_the_project_s_own_words(desk: Desk) -> None:
    project = desk.project("foreign", FOREIGN)
    desk.call("PATCH", f"projects/{project}", json={"model_version": "dermloop"})
    desk.call("POST", f"projects/{project}/import", json=[{"photo": "/data/local-files/?d=images/a.png"}])
    (prediction,) = desk.call("GET", f"projects/{project}/next")["predictions"]
    assert prediction["model_version"] == desk.parts.host.state.version
    (region,) = prediction["result"]
    assert region["from_name"] == "box" and region["value"]["rectanglelabels"] == ["Lesion"]


def test_a_pushed_project_is_current_and_the_house_config_is_accepted(desk: Desk) -> None:
    config = labelling_config(taxonomy.read(), Tier.TECHNICIAN)
    project = desk.project("house", config)
    fields = ("image_id", "key", "name", "state", "assignee", "reason", "note", "priority", "synthetic")
    row = {"image": "/data/local-files/?d=images/a.png", **dict.fromkeys(fields, "")}
    desk.call("POST", f"projects/{project}/import", json=[row] * 3)
    with closing(LabelStudioClient(desk.label_studio, TOKEN)) as client:
        first = preannotate(client, project, desk.parts.service, desk.parts.source, chunk_size=2)
        second = preannotate(client, project, desk.parts.service, desk.parts.source)
    assert (first.predicted, first.failed) == (3, ()) and (second.predicted, second.current) == (0, 3)
    shown = desk.call("GET", f"projects/{project}/next")["predictions"]
    assert [prediction["model_version"] for prediction in shown] == [first.model_version]


def test_a_drawn_box_comes_back_read_and_training_is_queued(desk: Desk) -> None:
    config = labelling_config(taxonomy.read(), Tier.TECHNICIAN)
    project = desk.project("interactive", config)
    row = {"image": "/data/local-files/?d=images/a.png", "note": ""}
    desk.call("POST", f"projects/{project}/import", json=[row])
    (task,) = desk.call("GET", f"tasks?project={project}")["tasks"]
    (connection,) = desk.call("GET", f"ml?project={project}")
    value = {"x": 10, "y": 20, "width": 30, "height": 30, "rotation": 0, "rectanglelabels": ["Melanoma"]}
    drawn = {"type": "rectanglelabels", "original_width": 160, "original_height": 120, "value": value}
    path = f"ml/{connection['id']}/interactive-annotating"
    told = desk.call("POST", path, json={"task": task["id"], "context": {"result": [drawn]}})["data"]
    assert [region["type"] for region in told["result"]] == ["rectanglelabels", "textarea"]
    assert told["result"][0]["value"]["x"] == pytest.approx(10)
    click = {**drawn, "type": "keypointlabels", "value": {"x": 25, "y": 40, "width": 0.4, "keypointlabels": ["Here"]}}
    told = desk.call("POST", path, json={"task": task["id"], "context": {"result": [click]}})["data"]
    assert told["result"][0]["value"]["x"] == pytest.approx(12.5, abs=2)
    desk.call("POST", f"ml/{connection['id']}/train", json={})
    assert [job.state.value for job in desk.parts.queue.jobs()] == ["pending"]
    assert desk.call("GET", f"ml/{connection['id']}/versions")["versions"] == [desk.parts.host.state.version]


@pytest.mark.filterwarnings("ignore:The `parse_obj` method:DeprecationWarning")  # the SDK's own exchange of tokens
def test_uploads_are_read_with_either_kind_of_token(desk: Desk) -> None:
    project = desk.project("uploads", FOREIGN)
    files = {"file": ("u.png", encoded(pixels()), "image/png")}
    desk.call("POST", f"projects/{project}/import", files=files)
    (task,) = desk.call("GET", f"tasks?project={project}")["tasks"]
    personal = desk.call("POST", "token/")["token"]
    for token in (TOKEN, personal):
        with closing(LabelStudioClient(desk.label_studio, token)) as client:
            assert client.fetch(task["data"]["photo"], 10**6) == encoded(pixels())
            assert [stored.id for stored in client.tasks(project)] == [task["id"]]
            report = preannotate(client, project, desk.parts.service, desk.parts.source)
        assert report.predicted + report.current == 1 and report.failed == ()


@pytest.mark.parametrize("presign", [True, False], ids=["presigned", "passed on"])
def test_an_object_is_read_through_label_studio_and_with_own_credentials(desk: Desk, store: str, presign: bool) -> None:
    project = desk.project("stored", FOREIGN)
    desk.call("PATCH", f"projects/{project}", json={"model_version": "dermloop"})
    storage = {
        "project": project,
        "bucket": "skin",
        "regex_filter": ".*png",
        "recursive_scan": True,
        "use_blob_urls": True,
        "presign": presign,
        "s3_endpoint": store,
        "region_name": "us-east-1",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
    }
    made = desk.call("POST", "storages/s3", json=storage)
    desk.call("POST", f"storages/s3/{made['id']}/sync", json={})
    task = desk.call("GET", f"projects/{project}/next")
    assert [one["model_version"] for one in task["predictions"]] == [desk.parts.host.state.version]
    shown = task["data"]["photo"]
    assert shown.startswith(f"/tasks/{task['id']}/resolve/")
    reach = Reach(Path(), hosts=frozenset({store.removeprefix("http://")}), buckets=frozenset({"skin"}))
    with closing(LabelStudioClient(desk.label_studio, TOKEN)) as client:
        for source in (ImageSource(reach, client), ImageSource(reach, objects=ObjectStore(store))):
            for address in ("s3://skin/clinic a/arm.png", shown):
                assert source.fetch(address, task["id"]) == encoded(pixels())
        with pytest.raises(FetchError, match="not listed"):
            ImageSource(replace(reach, buckets=frozenset()), client).fetch(shown, task["id"])
        with pytest.raises(FetchError, match="an object of a connected storage"):
            ImageSource(reach, client).fetch("s3://skin/absent.png", 10**6)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def sign_in(desk: Desk, browser: Browser) -> LabelStudioPage:
    return LabelStudioPage(browser, desk.label_studio, "one@example.org", PASSWORD)


def made_by_the_review(desk: Desk, project: int, *drafts: TaskDraft) -> tuple[int, ...]:
    """Tasks as the review service makes them, with its settings' links to heat-maps."""
    settings = ReviewSettings(heatmap_url=desk.backend, link_secret=SecretStr(SECRET))
    gateway = Gateway(desk.label_studio, TOKEN, taxonomy.read(), heatmap=settings.heatmap_link)
    with closing(gateway):
        return gateway.create_tasks(project, [(draft, ImageSize(160, 120)) for draft in drafts])


def test_a_reader_unfolds_the_heat_map_in_the_task_and_a_blind_one_has_none(desk: Desk, browser: Browser) -> None:
    project = desk.project("heat-maps", labelling_config(taxonomy.read(), Tier.TECHNICIAN))
    columns = {"image": "/data/local-files/?d=images/a.png", "note": "", "blind": ""}
    seeing, blind = (TaskDraft(tuple({**columns, "blind": said}.items())) for said in ("", "blind"))
    open_task, blind_task = made_by_the_review(desk, project, seeing, blind)
    reader = sign_in(desk, browser)
    asked: list[str] = []
    reader.page.on("request", lambda request: asked.append(request.url) if "/v1/overlay" in request.url else None)
    reader.page.goto(f"{desk.label_studio}/projects/{project}/data?task={open_task}")
    summary = reader.page.get_by_text("Where the model looked")
    summary.wait_for()
    assert asked == [], "the picture is fetched when it is unfolded"
    summary.click()
    expect(reader.page.locator(".dl-heat img")).to_have_js_property("naturalWidth", 160)
    reader.screenshot("heat-map-in-a-task")
    assert asked and all("sign=" in address for address in asked)
    assert reader.page.locator(".dl-heat a").get_attribute("target") == "_blank"
    reader.page.goto(f"{desk.label_studio}/projects/{project}/data?task={blind_task}")
    reader.page.locator(".dl-heat").wait_for(state="attached")
    expect(reader.page.get_by_text("Where the model looked")).to_be_hidden()


def test_the_data_manager_tells_the_model_and_how_far_its_training_is(desk: Desk, browser: Browser) -> None:
    project = desk.project("trained", FOREIGN)
    desk.call("POST", f"projects/{project}/import", json=[{"photo": "/data/local-files/?d=images/a.png"}])
    (connection,) = desk.call("GET", f"ml?project={project}")
    desk.call("POST", f"ml/{connection['id']}/train", json={})
    reader = sign_in(desk, browser)
    reader.open_queue(project)
    reader.page.get_by_label("Select all rows").check()
    reader.page.get_by_role("button", name=re.compile("Actions|Tasks?")).first.click()
    reader.page.get_by_text("Model and training").click()
    expect(reader.page.get_by_text(f"{desk.parts.host.state.version} draws the first boxes.")).to_be_visible()
    expect(reader.page.get_by_text("The newest retraining has waited for a worker since")).to_be_visible()
    reader.screenshot("training-in-the-data-manager")
