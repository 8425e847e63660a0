"""Each command that a README or a page shows is run, in their order, in one home, or by a test that is named."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from dermloop.cli import app

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
from elsewhere import ELSEWHERE, Elsewhere  # noqa: E402 - a neighbour, not a package
from synopses import written_out  # noqa: E402

COMMAND = typer.main.get_command(app)
OWN_TAXONOMY = """
[[diagnosis]]
id = 7
code = "scc"
name = "Squamous cell carcinoma"
severity = "moderate"
malignant = true
"""
EXPECTED_STATUS = {
    "dermloop freeze": (1, "approved"),
    "dermloop taxonomy diff own-taxonomy.toml": (1, ""),
    "dermloop dataset diff pictures boxes": (1, ""),
    "dermloop review send-back IMAGE": (1, "allowed step"),
}
"""Commands that a page shows with another outcome than success, and a word of what they say."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One command of a page."""

    page: str
    line: str

    @property
    def elsewhere(self) -> Elsewhere | None:
        return next((known for known in ELSEWHERE if self.line.startswith(known.begins)), None)

    @property
    def runs(self) -> bool:
        return self.line.startswith("dermloop ") and self.elsewhere is None


def pages() -> list[Path]:
    """The README and the pages of the site, in the order of its navigation, then those that it does not list."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = [ROOT / "docs" / page for section in nav for pages in section.values() for page in pages]
    found = [ROOT / "README.md", *(page for page in listed if page.is_file())]
    return [*found, *sorted(page for page in (ROOT / "docs").rglob("*.md") if page not in found)]


def shown() -> list[Shown]:
    commands = []
    for page in pages():
        name = str(page.relative_to(ROOT))
        for block in re.findall(
            r"^ *```(?:sh|bash|console)\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.S | re.M
        ):
            lines = (line.split(" #")[0].strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines())
            commands += [Shown(name, line) for line in lines if line and not line.startswith("#")]
    return commands


def packages() -> list[Shown]:
    """The commands of the packages' own READMEs, which word them more shortly."""
    readmes = sorted({*ROOT.glob("[a-z]*/README.md"), *ROOT.glob("[a-z]*/[a-z]*/README.md")})
    return [Shown(str(page.relative_to(ROOT)), line) for page in readmes for line in written_out(page.read_text())]


class Shell:
    """`dermloop` in a folder of its own, quick after the first command."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DERMLOOP_", "AWS_"))}
        self._environment = {**kept, "COLUMNS": "200"}

    def run(self, line: str) -> tuple[int, str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        asked = {"words": shlex.split(line), "folder": str(self._folder), "environment": self._environment}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return int(answer["status"]), str(answer["said"])


@contextmanager
def shell(folder: Path) -> Iterator[Shell]:
    command = [sys.executable, str(Path(__file__).with_name("shell.py"))]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        yield Shell(process, folder)
        assert process.stdin is not None
        process.stdin.close()


def prepare(folder: Path) -> None:
    """The files that a page asks its reader to bring."""
    shipped = (ROOT / "converters" / "taxonomy.toml").read_text(encoding="utf-8")
    (folder / "own-taxonomy.toml").write_text(shipped + OWN_TAXONOMY, encoding="utf-8")


def filled_in(line: str, run: Shell) -> str:
    """The command with the capitals replaced that its reader has to fill in."""
    if "IMAGE" in line or "PATIENT" in line:
        _, said = run.run("dermloop review export")
        image = json.loads(said.splitlines()[0])["image_id"]
        line = line.replace("IMAGE", image).replace("PATIENT", "synthetic-1-00000")
    return line


def test_every_command_is_run_here_or_by_a_test_that_is_named() -> None:
    commands = [*shown(), *packages()]
    assert len(commands) > 160
    assert [one for one in commands if not one.runs and one.elsewhere is None] == []


def test_the_table_of_other_places_names_tests_that_exist_and_commands_that_are_shown() -> None:
    for known in ELSEWHERE:
        assert known.why and known.tests
        for test in known.tests:
            path, _, name = test.partition("::")
            assert (ROOT / path).exists(), test
            assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), test


OF_PAGES = [one for one in shown() if one.line.startswith("dermloop ")]
OF_PACKAGES = [one for one in packages() if one.runs]


@pytest.mark.parametrize("one", [*OF_PAGES, *OF_PACKAGES], ids=lambda one: one.line)
def test_the_commands_own_parser_takes_it(one: Shown) -> None:
    words, command, context = shlex.split(one.line)[1:], COMMAND, None
    while hasattr(command, "commands"):
        context = command.make_context("dermloop", [], parent=context, resilient_parsing=True)
        command = command.commands[words.pop(0)]
    numbered = ["1" if word in ("JOB",) else word for word in words]
    command.make_context(one.line, numbered, parent=context)


def test_make_knows_each_target() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = {one.line.split()[1] for one in shown() if one.line.startswith("make ")}
    assert {"up", "test", "loop"} <= named <= targets


def test_each_command_does_what_its_page_says_in_the_order_of_the_pages(tmp_path: Path) -> None:
    prepare(tmp_path)
    problems = []
    with shell(tmp_path) as run:
        for one in (one for one in (*shown(), *packages()) if one.runs):
            wanted, word = next((v for k, v in EXPECTED_STATUS.items() if one.line.startswith(k)), (0, ""))
            status, said = run.run(filled_in(one.line, run))
            if status != wanted or word not in said or "Traceback" in said:
                problems.append(f"{one.page}: {one.line}: status {status}, {said[-400:]}")
    assert problems == []
