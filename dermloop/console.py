"""What a person at the terminal sees: steps with their time, progress in place, addresses and logins in a table."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.status import Status
from rich.table import Table

from dermloop.ingest import IngestReport, Skipped
from dermloop.stack.secrets import Login

DISCLAIMER = "Supports annotation and research; no diagnosis."


class Steps:
    """Prints each step once it is told the next; at a terminal the current one has a spinner and a clock."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = time.monotonic()
        self._status: Status | None = None
        self._lock = threading.Lock()

    def say(self, sentence: str) -> None:
        """A new step or fact, in a sentence."""
        with self._lock:
            self._console.print(f"[dim]{time.monotonic() - self._begun:6.1f} s[/dim]  ", end="")
            self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)
            self._spin(sentence)

    def progress(self, what: str, done: int, total: int) -> None:
        """So many of so many; lines of their own only at each quarter where there is no terminal."""
        with self._lock:
            if self._console.is_terminal:
                self._spin(f"{what} {done} of {total}")
            elif total >= 4 and done % max(1, total // 4) == 0:
                self._console.print(f"          {what} {done} of {total}", highlight=False)

    def end(self) -> None:
        """Takes the spinner away."""
        with self._lock:
            if self._status is not None:
                self._status.stop()
                self._status = None

    def _spin(self, text: str) -> None:
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        self._status.update(text[: self._console.width - 4])


def addresses(pairs: Iterable[tuple[str, str]]) -> Table:
    """Where to go, one address a row."""
    table = Table(title="Addresses", title_justify="left", box=None, show_header=False, padding=(0, 2))
    for title, url in pairs:
        table.add_row(title, url)
    return table


def logins(people: Iterable[Login]) -> Table:
    """Who can log in, with e-mail address and password."""
    table = Table(title="Logins for Label Studio", title_justify="left", box=None, padding=(0, 2))
    for heading in ("role", "e-mail", "password"):
        table.add_column(heading, no_wrap=True)
    for login in people:
        table.add_row(login.role.value, login.email, login.password)
    return table


def left_out(report: IngestReport, most: int = 50) -> Table:
    """What an import left out and why, the first `most` of it."""
    table = Table(title="Left out", title_justify="left", box=None, padding=(0, 2))
    for heading in ("kind", "what", "why"):
        table.add_column(heading, overflow="fold")
    entries: Sequence[Skipped] = (*report.skipped, *report.notes)
    for entry in entries[:most]:
        table.add_row(entry.kind, entry.item, entry.reason)
    if len(entries) > most:
        table.add_row("…", f"{len(entries) - most} more", "use --json to see all")
    return table
