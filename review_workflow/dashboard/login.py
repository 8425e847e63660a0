"""Signing in to the dashboard with the address and password of Label Studio."""

from __future__ import annotations

from typing import Protocol

import requests

from review_workflow.errors import LabelStudioError

_TIMEOUT = 15


class Doorkeeper(Protocol):
    """Whoever knows the passwords."""

    def knows(self, email: str, password: str) -> bool:
        """Whether this is the person's password; raises LabelStudioError where nobody can say."""


class LabelStudioDoorkeeper:
    """Asks Label Studio's own sign-in page; no password is kept."""

    def __init__(self, url: str) -> None:
        self._page = f"{url.rstrip('/')}/user/login/"

    def knows(self, email: str, password: str) -> bool:
        """Whether Label Studio lets this person in; raises LabelStudioError where it is away."""
        try:
            with requests.Session() as session:
                session.get(self._page, timeout=_TIMEOUT)
                form = {
                    "email": email,
                    "password": password,
                    "csrfmiddlewaretoken": session.cookies.get("csrftoken", ""),
                }
                headers = {"Referer": self._page}
                answer = session.post(self._page, data=form, headers=headers, timeout=_TIMEOUT, allow_redirects=False)
                return answer.status_code == 302
        except requests.RequestException as error:
            raise LabelStudioError("sign-in", type(error).__name__, "Label Studio to answer", "Start it.") from error
