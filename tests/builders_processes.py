"""Programs started as their images start them, and waiting for what they come to."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable

from builders_compose import DOCKER
from dockerfile_parse import DockerfileParser


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


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    """Returns once it holds; fails where it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
