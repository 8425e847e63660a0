"""Whom the service turned away, told to its record in the words of HTTP."""

from __future__ import annotations

from flask import request

from review_workflow.refusals import RefusalBook, Refused, caller


def note_refusal(book: RefusalBook, what: Refused, source: str | None = None) -> None:
    """Puts the request at hand on record, by its route and by its caller's address unless they are known by name."""
    place = request.url_rule.rule if request.url_rule else "unknown page"
    book.note(what, place, source or caller(request.remote_addr, request.headers.get("X-Forwarded-For")))
