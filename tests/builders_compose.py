"""docker/compose.yaml as Compose would read it: merged, filled in from an environment, one service at a time."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from builders_redis import PASSWORD

DOCKER = Path(__file__).parents[1] / "docker"
_REFERENCE = re.compile(r"\$(?:\$|\{(?P<name>[A-Z0-9_]+)(?:(?P<how>:-|:\?)(?P<word>[^}]*))?\})")


class MissingError(Exception):
    """A variable that Compose would refuse to go on without; its text is the sentence that it would print."""


def example_environment() -> dict[str, str]:
    """The environment that `docker/new-env` prints, with secrets of its own."""
    printed = subprocess.run(["sh", str(DOCKER / "new-env")], capture_output=True, text=True, check=True).stdout
    lines = (line for line in printed.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@cache
def raw() -> dict[str, Any]:
    """The file with its anchors and merges resolved, variables as they are written."""
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8")))


def filled(value: Any, environment: Mapping[str, str]) -> Any:
    """A part of the file with every variable replaced; raises MissingError where one that must be set is not."""
    if isinstance(value, dict):
        return {key: filled(inner, environment) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, environment) for inner in value]
    return _REFERENCE.sub(lambda match: _value(match, environment), value) if isinstance(value, str) else value


def _value(match: re.Match[str], environment: Mapping[str, str]) -> str:
    name = match["name"]
    if name is None:
        return "$"
    if environment.get(name):
        return environment[name]
    if match["how"] == ":?":
        raise MissingError(f"required variable {name} is missing a value: {match['word']}")
    return match["word"] or ""


def service(name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """One service as Compose would start it."""
    return dict(filled(raw()["services"][name], environment))


def references() -> set[str]:
    """The names of all variables that the file mentions."""
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return {match["name"] for match in _REFERENCE.finditer("\n".join(lines)) if match["name"]}


def redis_options() -> list[str]:
    """What Redis is started with, by the password of the tests' builder."""
    command = service("redis", {**example_environment(), "REDIS_PASSWORD": PASSWORD})["command"]
    assert command[0] == "redis-server"
    return list(command[1:])
