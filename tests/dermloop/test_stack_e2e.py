"""`dermloop up` with the real programs: up, looked at over HTTP, killed, down, and up again with nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

from dermloop.home import Home
from dermloop.stack import BACKEND, LABEL_STUDIO, REVIEW, WORKER, Ports, free_ports, supervisor
from dermloop.stack.secrets import StackSecrets, open_secrets

pytestmark = pytest.mark.e2e
PICTURES = 6


@dataclass(frozen=True)
class Place:
    """A home with its ports, and `dermloop` on it."""

    home: Home
    ports: Ports

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dermloop", *arguments]
        environment = {**os.environ, "DERMLOOP_HOME": str(self.home.root), "NO_COLOR": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=500)

    def up(self) -> subprocess.CompletedProcess[str]:
        ports = [f"--port-{name.replace('_', '-')}={getattr(self.ports, name)}" for name in self.ports.__slots__]
        return self.run("up", "--detach", "--no-train", f"--demo-count={PICTURES}", *ports)

    def programs(self) -> dict[str, int]:
        return json.loads(self.run("status", "--json").stdout)["programs"]

    @property
    def secrets(self) -> StackSecrets:
        return open_secrets(self.home.secrets)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.label_studio}"

    def get(self, path: str, token: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", headers={"Authorization": f"Token {token}"}, timeout=30)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(Home(tmp_path_factory.mktemp("stack") / "home"), free_ports())
    started = made.up()
    assert started.returncode == 0, started.stdout + started.stderr
    yield made
    made.run("down")


def tasks_of(place: Place, token: str) -> dict[str, list[dict[str, object]]]:
    projects = place.get("/api/projects?page_size=100", token).json()["results"]
    return {
        project["title"]: place.get(f"/api/tasks?project={project['id']}&fields=all&page_size=100", token).json()[
            "tasks"
        ]
        for project in projects
    }


def eventually(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.3)
    return holds()


def test_four_programs_run_and_answer(place: Place) -> None:
    found = place.programs()
    assert all(found[name] for name in (LABEL_STUDIO, BACKEND, REVIEW, WORKER))
    for port in (place.ports.label_studio, place.ports.backend, place.ports.review):
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 200


def test_the_log_names_addresses_and_logins(place: Place) -> None:
    words = (place.home.logs / "up.log").read_text(encoding="utf-8")
    assert place.url in words
    for login in place.secrets.people:
        assert login.email in words and login.password in words


def test_each_person_can_log_in_and_see_the_work(place: Place) -> None:
    for login in place.secrets.people:
        assert place.get("/api/current-user/whoami", login.token).json()["email"] == login.email
        work = tasks_of(place, login.token)
        assert len(work) == 3
        assert sorted(len(found) for found in work.values()) == [0, 0, PICTURES]


def test_the_bulk_verdicts_are_in_the_data_manager(place: Place) -> None:
    token = place.secrets.people[1].token
    projects = place.get("/api/projects", token).json()["results"]
    project = next(found["id"] for found in projects if "2" in found["title"])
    offered = {action["id"] for action in place.get(f"/api/dm/actions?project={project}", token).json()}
    assert {"dermloop_accept", "dermloop_send_back"} <= offered


def test_a_technician_gets_the_picture_itself_and_is_told_that_it_is_synthetic(place: Place) -> None:
    token = place.secrets.people[0].token
    task = next(found for found in tasks_of(place, token).values() if found)[0]
    data = task["data"]
    assert isinstance(data, dict) and data["synthetic"]
    answer = place.get(data["image"], token)
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "image/jpeg"
    assert requests.get(place.url + data["image"], timeout=10, allow_redirects=False).status_code in (302, 401, 403)


def test_nobody_reads_anything_of_the_home_but_images_even_with_a_storage_of_their_own(place: Place) -> None:
    token = place.secrets.people[0].token
    project = place.get("/api/projects", token).json()["results"][0]["id"]
    for folder in (place.home.root, place.home.label_studio, place.home.served):
        storage = {"project": project, "path": str(folder), "title": "peephole"}
        answer = requests.post(
            f"{place.url}/api/storages/localfiles",
            json=storage,
            headers={"Authorization": f"Token {token}"},
            timeout=30,
        )
        assert answer.status_code == 400, folder
    for wanted in ("secrets.toml", "../secrets.toml", "images/../../secrets.toml", "../label-studio/.env"):
        assert place.get(f"/data/local-files/?d={wanted}", token).status_code >= 400, wanted


def test_nobody_signs_up_without_an_invitation(place: Place) -> None:
    session = requests.Session()
    session.get(f"{place.url}/user/signup/", timeout=30)
    form = {
        "email": "stranger@dermloop.example",
        "password": "wide-open-door",
        "csrfmiddlewaretoken": session.cookies["csrftoken"],
    }
    answer = session.post(
        f"{place.url}/user/signup/", data=form, headers={"Referer": place.url}, timeout=30, allow_redirects=False
    )
    session.close()
    assert answer.status_code == 403


def test_a_second_up_on_the_same_home_or_port_says_who_is_there(place: Place, tmp_path: Path) -> None:
    assert "in use by process" in place.up().stderr
    other = Place(Home(tmp_path / "other"), place.ports).up()
    assert other.returncode == 1
    assert f"port {place.ports.label_studio}: taken by" in other.stdout
    assert f"--port-label-studio {place.ports.label_studio + 1}" in other.stdout


@pytest.mark.parametrize("name", [BACKEND, REVIEW, WORKER])
def test_a_program_killed_outright_comes_back_by_itself(place: Place, name: str) -> None:
    before = place.programs()[name]
    os.killpg(before, signal.SIGKILL)
    assert eventually(lambda: place.programs()[name] not in (None, before), 60)


def test_killing_everything_outright_loses_nothing(place: Place) -> None:
    token = place.secrets.people[0].token
    before, logins = tasks_of(place, token), place.secrets
    found = supervisor.running(place.home)
    os.kill(found.pop(supervisor.SUPERVISOR), signal.SIGKILL)
    os.killpg(found[LABEL_STUDIO], signal.SIGKILL)
    again = place.up()
    assert again.returncode == 0, again.stdout + again.stderr
    assert "left over from a run that was killed" in again.stdout
    assert tasks_of(place, token) == before
    assert place.secrets == logins


def test_down_ends_every_process_and_leaves_the_data(place: Place) -> None:
    pids = list(supervisor.running(place.home).values())
    assert len(pids) == 5
    answer = place.run("down")
    assert answer.returncode == 0 and "Stopped" in answer.stdout
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert place.programs() == dict.fromkeys((LABEL_STUDIO, BACKEND, REVIEW, WORKER))
    assert len(list(place.home.images.iterdir())) == PICTURES
