"""Two serving processes on two machines that share nothing but a registry on S3: promotions, rollbacks, an outage."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from builders_compose import example_environment, service
from builders_processes import free_ports, image_instruction, until
from builders_registry import SharedRegistry, shared_registry
from builders_serving import bundle, encoded, pixels

ROOT = Path(__file__).parents[2]
TOKEN = "reader-token-of-this-test"
BOUND_SECONDS = 10.0
"""Within so long all serve a promotion or a rollback, on a busy machine too; measured: 1.3 to 2.0 s, one look."""


@dataclass
class Machine:
    """A replica of the serving image on a machine of its own."""

    home: Path
    port: int
    settings: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        given = dict(service("serving", example_environment())["environment"])
        given |= {"DERMLOOP_ML_HOME": str(self.home), "DERMLOOP_ML_PORT": str(self.port), **self.settings}
        given |= {"DERMLOOP_ML_HOST": "127.0.0.1", "DERMLOOP_ML_TOKENS": f"reader:{TOKEN}", "DERMLOOP_ML_THREADS": "1"}
        given |= {"DERMLOOP_ML_MODEL_CACHE": str(self.home / "cache"), "PATH": os.environ["PATH"]}
        with (self.home / "log").open("ab") as log:
            command = image_instruction("serving", "CMD")
            environment = {**given, "PYTHONPATH": str(ROOT)}
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)

    def ready(self) -> tuple[int, dict[str, Any]]:
        with contextlib.suppress(requests.RequestException):
            answer = requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5)
            return answer.status_code, answer.json()
        return 0, {}

    def read(self) -> str:
        """The version that reads a picture."""
        files = {"image": ("a.png", encoded(pixels()))}
        login = {"Authorization": f"Bearer {TOKEN}"}
        answer = requests.post(f"http://127.0.0.1:{self.port}/v1/analyze", files=files, headers=login, timeout=30)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["model_version"])


@pytest.fixture
def shared() -> Iterator[SharedRegistry]:
    with shared_registry() as made:
        yield made


@pytest.fixture
def machines(shared: SharedRegistry, tmp_path: Path) -> Iterator[tuple[Machine, ...]]:
    made = tuple(
        Machine(tmp_path / name, port, shared.settings) for name, port in zip("ab", free_ports(2), strict=True)
    )
    try:
        for machine in made:
            machine.home.mkdir()
            machine.start()
        yield made
    finally:
        for machine in made:
            machine.stop()


def test_machines_follow_the_registry_within_seconds_and_serve_on_without_it(
    shared: SharedRegistry, machines: tuple[Machine, ...], tmp_path: Path
) -> None:
    until(lambda: all(machine.ready()[0] == 503 for machine in machines), 120)
    one, other = (bundle(tmp_path / "engineer", name=name, champion=False) for name in ("one", "other"))
    for champion in (one, other):
        shared.promote(champion)
        assert seconds_until_all_serve(machines, champion.version) < BOUND_SECONDS
    assert shared.rollback(tmp_path / "engineer" / "models") == one.version
    assert seconds_until_all_serve(machines, one.version) < BOUND_SECONDS
    shared.stop()
    until(lambda: all("What was served before" in machine.ready()[1].get("error", "") for machine in machines), 120)
    machines[0].stop()
    machines[0].start()
    until(lambda: machines[0].ready()[0] == 200, 120)
    assert {machine.read() for machine in machines} == {one.version}
    shared.start()
    shared.promote(other)
    seconds_until_all_serve(machines, other.version)
    assert [machine.ready()[1].get("error") for machine in machines] == [None, None]


def seconds_until_all_serve(machines: tuple[Machine, ...], version: str) -> float:
    began = time.monotonic()
    until(lambda: all(machine.ready()[1].get("model_version") == version for machine in machines), 120)
    took = time.monotonic() - began
    assert {machine.read() for machine in machines} == {version}
    return took
