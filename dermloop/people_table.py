"""The table of people that a server is set up with: e-mail address, role and name of each."""

from __future__ import annotations

import csv
from pathlib import Path

from dermloop.errors import ProvisionError
from dermloop.stack.secrets import Login
from review_workflow.people import Role

COLUMNS = ("email", "role", "first_name", "last_name")


def read_people(path: Path) -> tuple[Login, ...]:
    """Everybody in the table, without passwords; raises ProvisionError naming the line that cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            head, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProvisionError(str(path), str(error), f"a table with {', '.join(COLUMNS)}", "Write one.") from error
    if missing := [name for name in COLUMNS[:2] if name not in head]:
        raise ProvisionError(str(path), head, f"a column {missing[0]}", f"The first line is {','.join(COLUMNS)}.")
    people = tuple(_login(path, number, row) for number, row in enumerate(rows, start=2))
    _require_once(path, people)
    return people


def _login(path: Path, number: int, row: dict[str, str | None]) -> Login:
    cell = {name: (row.get(name) or "").strip() for name in COLUMNS}
    item = f"{path}, line {number}"
    if "@" not in cell["email"]:
        raise ProvisionError(item, cell["email"], "an e-mail address", "Correct the line.")
    if cell["role"] not in tuple(Role):
        raise ProvisionError(item, cell["role"], f"one of {', '.join(Role)}", "Correct the line.")
    return Login(cell["email"].lower(), "", Role(cell["role"]), cell["first_name"], cell["last_name"])


def _require_once(path: Path, people: tuple[Login, ...]) -> None:
    seen: set[str] = set()
    for login in people:
        if login.email in seen:
            raise ProvisionError(str(path), login.email, "each person once", "Remove the second line.")
        seen.add(login.email)
