"""Three serving processes behind the proxy, each started as its image starts it, and a promotion under traffic."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from builders_compose import DOCKER, example_environment, service
from builders_processes import free_ports, image_instruction, until
from builders_serving import bundle, encoded, pixels

from ml_backend.bundle import set_champion

ROOT = Path(__file__).parents[2]
TOKEN = "reader-token-of-this-test"
BOUND_SECONDS = 10.0
"""After a promotion no replica may serve the old version for longer; measured: about a second on an idle machine."""


@dataclass
class Fleet:
    """The replicas of a home and the proxy before them."""

    home: Path
    address: str = ""
    watch_address: str = ""
    certificate: Path = Path()
    replicas: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    if shutil.which("caddy") is None:
        pytest.skip("Caddy is not installed (Debian: apt-get install caddy)")
    tmp_path = tmp_path_factory.mktemp("fleet")
    made = Fleet(tmp_path / "home")
    bundle(made.home)
    label, review, model, watch, http, health, *ports = free_ports(9)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((tmp_path / "log").open("wb"))
        for port in ports:
            made.replicas[port] = start(stack, made.home, port, log)
        made.address, made.watch_address = f"https://localhost:{model}", f"https://localhost:{watch}"
        made.certificate = tmp_path / "data" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        given = {**service("proxy", example_environment())["environment"]}
        others = {"LABEL": label, "REVIEW": review, "WATCH": watch}
        given |= {f"DERMLOOP_{name}_ADDRESS": f"https://localhost:{port}" for name, port in others.items()}
        given |= {"DERMLOOP_MODEL_ADDRESS": made.address, "DERMLOOP_HTTP_PORT": str(http)}
        given |= {"DERMLOOP_PROXY_HEALTH_PORT": str(health)}
        given["DERMLOOP_MODEL_UPSTREAM"] = " ".join(("to", *(f"127.0.0.1:{port}" for port in ports)))
        given |= {"XDG_DATA_HOME": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
        command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(DOCKER / "proxy" / "Caddyfile")]
        started(stack, command, {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **given}, log)
        until(lambda: answers(f"http://127.0.0.1:{health}"))
        until(made.certificate.is_file)
        for port in ports:
            until(lambda port=port: answers(f"http://127.0.0.1:{port}/readyz"))  # type: ignore[misc]
            check = image_instruction("serving", "HEALTHCHECK")
            assert subprocess.run(check, env={"DERMLOOP_ML_PORT": str(port)}, check=False).returncode == 0
        yield made


def start(stack: contextlib.ExitStack, home: Path, port: int, log: object) -> subprocess.Popen[bytes]:
    """A replica: the image's command with the environment that Compose gives it, but for places and ports."""
    given = dict(service("serving", {**example_environment(), "DERMLOOP_ML_TOKENS": f"reader:{TOKEN}"})["environment"])
    given |= {"DERMLOOP_ML_HOME": str(home), "DERMLOOP_ML_PORT": str(port), "DERMLOOP_ML_HOST": "127.0.0.1"}
    given |= {"DERMLOOP_ML_THREADS": "1", "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return started(stack, image_instruction("serving", "CMD"), given, log)


def started(
    stack: contextlib.ExitStack, command: list[str], environment: dict[str, str], log: object
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # type: ignore[call-overload]
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    return process  # type: ignore[no-any-return]


def answers(url: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(url, timeout=3).ok
    return False


@dataclass
class Caller:
    """Asks for batches through the proxy until told to stop, and keeps when which version answered."""

    fleet: Fleet
    stop: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(self.fleet.certificate)
            session.headers["Authorization"] = f"Bearer {TOKEN}"
            while not self.stop.is_set():
                self._ask(session)

    def _ask(self, session: requests.Session) -> None:
        files = [("image", (f"{n}.png", encoded(pixels(160 + n, 120)))) for n in range(3)]
        try:
            answer = session.post(f"{self.fleet.address}/v1/analyze", files=files, timeout=30)
        except requests.RequestException as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            return
        row = answer.json() if answer.ok else {}
        if answer.status_code != 200 or len(row["results"]) != 3 or any("error" in one for one in row["results"]):
            self.failures.append(f"{answer.status_code} {row}")
        self.seen.append((time.monotonic(), str(row.get("model_version", ""))))


def test_a_promotion_in_the_middle_of_traffic_costs_no_answer_and_reaches_every_replica(fleet: Fleet) -> None:
    callers = [Caller(fleet) for _ in range(4)]
    threads = [threading.Thread(target=caller.run) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        until(lambda: sum(len(caller.seen) + len(caller.failures) for caller in callers) > 12)
        assert [failure for caller in callers for failure in caller.failures] == []
        old = json.loads((fleet.home / "models" / "champion.json").read_bytes())["version"]
        new = bundle(fleet.home, name="next", champion=False).version
        set_champion(fleet.home / "models", new)
        promoted = time.monotonic()
        until(lambda: all(served(port) == new for port in fleet.replicas), BOUND_SECONDS)
        settled = time.monotonic()
        until(lambda: all(len([1 for at, _ in caller.seen if at > settled]) > 3 for caller in callers))
    finally:
        for caller in callers:
            caller.stop.set()
        for thread in threads:
            thread.join()
    assert [failure for caller in callers for failure in caller.failures] == []
    seen = sorted(entry for caller in callers for entry in caller.seen)
    assert {version for _, version in seen} == {old, new}
    assert {version for at, version in seen if at < promoted} == {old}
    last_old = max(at for at, version in seen if version == old)
    assert last_old - promoted < BOUND_SECONDS


def served(port: int) -> str:
    return str(requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).json()["model_version"])


def test_a_stopped_replica_is_left_out_and_the_proxy_hides_what_is_not_for_outside(fleet: Fleet) -> None:
    caller = Caller(fleet)
    thread = threading.Thread(target=caller.run)
    thread.start()
    try:
        until(lambda: len(caller.seen) > 5)
        port = next(iter(fleet.replicas))
        fleet.replicas[port].terminate()
        fleet.replicas[port].wait(30)
        ended, held = time.monotonic(), len(caller.failures)
        until(lambda: len([1 for at, _ in caller.seen if at > ended]) > 10)
    finally:
        caller.stop.set()
        thread.join()
    assert len(caller.failures) == held <= 1, "only what the replica held when it was stopped may be lost"
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(fleet.certificate)
        for path in ("/setup", "/webhook", "/versions"):
            assert session.post(f"{fleet.address}{path}", timeout=10).status_code == 404
        assert session.get(f"{fleet.address}/v1/models", timeout=10).status_code == 401
        nobody = session.get(fleet.watch_address, timeout=10)
        assert (nobody.status_code, "add observability to COMPOSE_PROFILES" in nobody.text) == (503, True)
