"""Who may call what: bearer tokens by role, Label Studio's basic login, and an open mode that ends at this machine."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from ml_backend.errors import SettingsError
from ml_backend.settings import Settings


class Role(StrEnum):
    """What a caller is: Label Studio, a program with pictures to read, an operator, or a program that watches."""

    LABEL_STUDIO = "label-studio"
    READER = "reader"
    OPERATOR = "operator"
    OBSERVER = "observer"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows: a bearer token, or a user with a password, or nothing."""

    token: str | None = None
    user: str | None = None
    password: str | None = None


_PUBLIC = frozenset({"/health", "/healthz", "/readyz", "/", "/page.css", "/page.js", "/icon.svg"})
_OPERATOR_ONLY = frozenset({"/metrics"})
_BY_TOKEN = (Role.READER, Role.OPERATOR, Role.OBSERVER)
_LABEL_STUDIO_ONLY = frozenset({"/setup", "/webhook", "/job_status", "/versions", "/ready"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def tokens(settings: Settings) -> dict[Role, tuple[str, ...]]:
    """The configured bearer tokens by role; raises SettingsError for a malformed entry."""
    found: dict[Role, tuple[str, ...]] = {}
    for number, entry in enumerate(settings.tokens):
        role, _, token = entry.get_secret_value().partition(":")
        if role not in _BY_TOKEN or len(token) < 16:
            expected = f"{' or '.join(f'{known}:<token>' for known in _BY_TOKEN)} with 16 characters or more"
            raise SettingsError("DERMLOOP_ML_TOKENS", f"entry {number + 1}", expected, "Correct it.")
        found[Role(role)] = (*found.get(Role(role), ()), token)
    return found


def role_of(shown: Credentials, settings: Settings, known: dict[Role, tuple[str, ...]]) -> Role | None:
    """The role that the credentials prove, or None."""
    if shown.token is not None:
        given = shown.token.encode()
        proven = [role for role, own in known.items() for token in own if hmac.compare_digest(given, token.encode())]
        return proven[0] if proven else None
    if shown.user is None or settings.basic_auth_user is None or settings.basic_auth_password is None:
        return None
    user = hmac.compare_digest(shown.user.encode(), settings.basic_auth_user.encode())
    expected = settings.basic_auth_password.get_secret_value().encode()
    same = hmac.compare_digest((shown.password or "").encode(), expected)
    return Role.LABEL_STUDIO if user and same else None


def allows(role: Role | None, path: str) -> bool:
    """Whether a role may call a path; the operator may call everything, the observer nothing but /metrics."""
    if path in _PUBLIC or role is Role.OPERATOR:
        return True
    if path in _OPERATOR_ONLY or role is Role.OBSERVER:
        return role is Role.OBSERVER and path in _OPERATOR_ONLY
    return role is Role.LABEL_STUDIO or (role is Role.READER and path not in _LABEL_STUDIO_ONLY)


def is_local_name(host_header: str) -> bool:
    """Whether a Host header names this machine: in open mode a page elsewhere must not reach in by a rebound name."""
    return (urlsplit(f"//{host_header}").hostname or "") in _LOOPBACK_NAMES
