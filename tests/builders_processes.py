"""Programs started as their images or `make up` start them, asked over HTTP, and waited for."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders_compose import DOCKER
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Program:
    """A running program: its address and its log."""

    address: str
    log: Path

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.address + path, body, named), timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def answers(self, path: str = "/health") -> bool:
        """Whether it answers 200 there."""
        try:
            return self.ask(path)[0] == 200
        except OSError:
            return False

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path, ready: str = "/health", **settings: str) -> Iterator[Program]:
    """A program that answers 200 at `ready`; it is ended with the block."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DERMLOOP_")}
    environment = {**kept, **settings, "DERMLOOP_LOG_FORMAT": "json", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)
    program = Program(f"http://127.0.0.1:{port}", log)
    try:
        until(lambda: process.poll() is None and program.answers(ready), 240, log)
        yield program
    finally:
        process.terminate()
        process.wait(60)


def free_ports(count: int) -> list[int]:
    """So many ports that nothing listens on at this moment."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def image_instruction(name: str, kind: str) -> list[str]:
    """The words of an image's last CMD or HEALTHCHECK, with this Python in the place of its own."""
    parsed = DockerfileParser(path=str(DOCKER / name / "Dockerfile")).structure
    value = next(step["value"] for step in reversed(parsed) if step["instruction"] == kind)
    found = json.loads(value[value.index("[") :])
    return [sys.executable if word == "python" else word for word in found]


def until(holds: Callable[[], bool], seconds: float = 60, log: Path | None = None) -> None:
    """Returns once it holds; fails where it does not in time, with what the log says."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8") if log else "it did not come to pass"
        time.sleep(0.05)
