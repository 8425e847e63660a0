"""The repository keeps its promises: pinned versions, documented commands, two set-up commands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dermloop.cli import app

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+")
ROOT_COMMAND = typer.main.get_command(app)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("docs/**/*.md")]


def shell_lines(path: Path) -> Iterator[str]:
    for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", path.read_text(encoding="utf-8"), re.S):
        yield from (line.strip().removeprefix("$ ") for line in block.splitlines())


def below(command: Any) -> dict[str, Any]:
    """The commands of a group; none for a command."""
    return getattr(command, "commands", {})


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if not below(command):
        yield " ".join(words), command
    for name, part in below(command).items():
        yield from leaves(part, (*words, name))


@pytest.mark.parametrize("path", ["constraints.txt", "dermloop/stack/label-studio-constraints.txt"])
def test_constraints_hold_names_and_versions_only(path: str) -> None:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#") and not PIN.fullmatch(line)] == []


def test_every_declared_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    pinned = {canonical(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    names = {canonical(re.match(r"[A-Za-z0-9._-]+", text)[0]) for text in declared}  # type: ignore[index]
    assert names - pinned == set()


def test_the_readme_shows_two_set_up_commands_that_make_knows() -> None:
    block = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[0]
    shown = [line.split("#")[0].strip() for line in block.splitlines() if line.strip()]
    assert shown == ["make up", "make test"]
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {line.split()[1] for line in shown} <= targets


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_command_that_a_document_shows_exists_with_its_options(path: Path) -> None:
    for line in shell_lines(path):
        if not line.startswith("dermloop "):
            continue
        command, words = ROOT_COMMAND, line.split("#")[0].split()[1:]
        while below(command) and words and not words[0].startswith("-"):
            assert words[0] in below(command), line
            command, words = below(command)[words[0]], words[1:]
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        shown = {word.split("=")[0] for word in words if re.match(r"--[a-z]", word)}
        assert shown <= options | {"--help", "--debug"}, line


def test_every_command_is_in_some_document() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in documents())
    names = [name for name, _ in leaves(ROOT_COMMAND)]
    assert len(names) > 25
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)] == []


def test_every_command_and_option_explains_itself() -> None:
    for name, command in leaves(ROOT_COMMAND):
        assert command.help, name
        options = [option for option in command.params if option.param_type_name == "option"]
        assert [option.name for option in options if not option.help] == [], name
