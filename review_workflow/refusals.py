"""What the review turns away at its door, on record for an inspector without letting a stranger fill the disk.

It stays out of the audit log, which nobody without a role may lengthen. One row holds a minute of one caller: the first
refusal of that minute is written before its answer goes out, further ones are counted and written soon after. Beyond
some callers a minute all others share a row, so that the record grows by a bounded number of rows whoever knocks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address

from review_workflow.errors import StoreError
from review_workflow.store import Refusal, Store

log = logging.getLogger(__name__)
OTHERS = "other callers"
_CALLERS = 10
_Key = tuple[str, str, str, str]


class Refused(StrEnum):
    """What may be turned away."""

    SECRET = "wrong secret"
    MALFORMED = "malformed webhook"
    FOREIGN = "foreign project"
    SIGN_IN = "failed sign-in"
    PAGE = "page of another role"


class RefusalBook:
    """The refusals of one process on their way into the record; safe to be used by several threads."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._turn = threading.Lock()
        self._minute = ""
        self._callers: dict[tuple[str, str], set[str]] = {}
        self._pending: dict[_Key, Refusal] = {}

    def note(self, what: Refused, place: str, source: str, count: int = 1) -> None:
        """Counts a refusal at a place (a route) of a caller; one that cannot be written now is written later."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        with self._turn:
            known, source = self._known(f"{now:%Y-%m-%d %H:%M}", what, place, source)
            refusal = Refusal(self._minute, what.value, place, source, count, now.isoformat(timespec="seconds"))
            self._add(refusal)
        if not known:
            self.flush()

    def flush(self) -> None:
        """Writes what was counted since; a database that takes no writes leaves it for the next time."""
        with self._turn:
            pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            with self._store.writing() as session:
                for refusal in pending.values():
                    session.add_refusal(refusal)
        except StoreError as error:
            log.warning("%d refusals are not on record yet: %s", len(pending), error)
            with self._turn:
                self._put_back(pending.values())

    def newest(self, limit: int) -> tuple[Refusal, ...]:
        """What is on record, the newest minute first."""
        with self._store.reading() as session:
            return session.newest_refusals(limit)

    def all(self) -> list[Refusal]:
        """The whole record, oldest first."""
        with self._store.reading() as session:
            return list(session.refusals())

    def _known(self, minute: str, what: Refused, place: str, source: str) -> tuple[bool, str]:
        """Whether this minute has had that caller before, and under which name they are counted."""
        if minute != self._minute:
            self._minute, self._callers = minute, {}
        callers = self._callers.setdefault((what, place), set())
        name = source if source in callers or len(callers) < _CALLERS else OTHERS
        known = name in callers
        callers.add(name)
        return known, name

    def _add(self, refusal: Refusal) -> None:
        key = (refusal.minute, refusal.what, refusal.place, refusal.source)
        before = self._pending.get(key)
        self._pending[key] = replace(refusal, count=refusal.count + before.count) if before else refusal

    def _put_back(self, refusals: Iterable[Refusal]) -> None:
        later, self._pending = self._pending, {}
        for refusal in (*refusals, *later.values()):
            self._add(refusal)


def caller(address: str | None, forwarded: str | None) -> str:
    """Who knocked: the address of the connection, and whom a proxy says that it came from; nothing else is kept."""
    near = _address(address) or "unknown address"
    far = _address((forwarded or "").rpartition(",")[2])
    return f"{far} by way of {near}" if far and far != near else near


def _address(text: str | None) -> str:
    try:
        return str(ip_address((text or "").strip()))
    except ValueError:
        return ""
