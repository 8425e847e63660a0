"""What `dermloop up` does on a laptop, for a server whose programs somebody else starts: people, projects, connections.

It may run at every start: whatever is there already stays as it is.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import requests

from converters.whole import whole_file
from dermloop.errors import AccountError, ProvisionError
from dermloop.home import Home
from dermloop.people_table import read_people
from dermloop.stack import accounts
from dermloop.stack.secrets import Login, new_password
from review_workflow.people import Person, Role
from review_workflow.service import ReviewService, open_service
from review_workflow.settings import ReviewSettings, require

LOGINS = "logins.csv"
ADMIN_EMAIL = "DERMLOOP_ADMIN_EMAIL"
_PAUSE = 1.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ProvisionReport:
    """What a pass did: accounts that are new, what was changed in Label Studio, and what could not be done."""

    people: int
    new_accounts: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())


def provision(home: Home, settings: ReviewSettings, people: Path | None, say: Say, patience: float) -> ProvisionReport:
    """The report after Label Studio has everybody's account, the three projects, webhooks and the ML backend.

    Waits at most `patience` seconds for Label Studio and the backend. Raises ProvisionError, AccountError or the
    review's errors with the setting or the line that is wrong; nothing is undone by a failure.
    """
    require(settings, "label_studio_token", "webhook_secret", "public_url", "ml_backend_url")
    named = read_people(people) if people else ()
    admin = _admin(settings)
    home.create()
    deadline = time.monotonic() + patience
    _wait_for(f"{settings.label_studio_url}/health", "Label Studio", say, deadline)
    admin = _known(settings.label_studio_url, admin)
    everybody, new = _accounts(home, settings.label_studio_url, admin, named, say)
    service = open_service(settings)
    try:
        for login in (admin, *everybody):
            service.put_person(Person(login.email, login.role, login.user_id))
        changes, problems = _projects(service, deadline)
    finally:
        service.close()
    return ProvisionReport(len(everybody), new, changes, problems)


def _admin(settings: ReviewSettings) -> Login:
    email = os.environ.get(ADMIN_EMAIL, "").strip()
    if not email:
        raise ProvisionError(ADMIN_EMAIL, "nothing", "the e-mail address of the service's account", "Set it.")
    return Login(email, "", Role.ADMIN, token=settings.label_studio_token.get_secret_value())


def _wait_for(url: str, what: str, say: Say, deadline: float) -> None:
    told = False
    while True:
        try:
            if requests.get(url, timeout=5).ok:
                return
            reason = "it answers with an error"
        except requests.RequestException as error:
            reason = type(error).__name__
        if time.monotonic() > deadline:
            raise ProvisionError(what, f"{url}: {reason}", "an answer", "Start it, or look into its log.")
        if not told:
            say(f"Waiting for {what}")
            told = True
        time.sleep(_PAUSE)


def _known(url: str, admin: Login) -> Login:
    try:
        return accounts.account_of(url, admin)
    except AccountError as error:
        cure = "Set the token that Label Studio was first started with, or copy it from the account's page there."
        raise ProvisionError("DERMLOOP_REVIEW_LABEL_STUDIO_TOKEN", "refused", "an accepted token", cure) from error


def _accounts(
    home: Home, url: str, admin: Login, named: Sequence[Login], say: Say
) -> tuple[tuple[Login, ...], tuple[str, ...]]:
    """Everybody with their id in Label Studio, and the addresses that had no account yet."""
    ids = accounts.account_ids(url, admin)
    found, new = [], []
    for login in named:
        if login.email not in ids:
            made = accounts.ensure_account(url, admin, _with_password(home, login))
            say(f"Made an account for {login.email}")
            new.append(login.email)
            found.append(made)
        else:
            found.append(replace(login, user_id=ids[login.email]))
    return tuple(found), tuple(new)


def _with_password(home: Home, login: Login) -> Login:
    """The login with its first password, kept in the home before Label Studio hears of it."""
    path = home.root / LOGINS
    kept = _first_passwords(path)
    if login.email not in kept:
        kept[login.email] = new_password()
        _write_private(path, kept)
    return replace(login, password=kept[login.email])


def _first_passwords(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["email"]: row["first_password"] for row in csv.DictReader(stream)}


def _write_private(path: Path, passwords: dict[str, str]) -> None:
    with whole_file(path) as draft:
        draft.touch(0o600)
        with draft.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("email", "first_password"))
            writer.writerows(passwords.items())


def _projects(service: ReviewService, deadline: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All changes until nothing is left to repair, and what still could not be done at the deadline."""
    changes: list[str] = []
    while True:
        report = service.set_up()
        changes += report.changes
        if not report.problems or time.monotonic() > deadline:
            return tuple(changes), report.problems
        time.sleep(_PAUSE)
