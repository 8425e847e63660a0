"""Lets every package's commands find the local stack: its settings, where the environment does not name others."""

from __future__ import annotations

import json
import os
from urllib.parse import urlsplit

from dermloop.errors import SecretsError
from dermloop.home import Home
from dermloop.stack.ports import Ports
from dermloop.stack.programs import BACKEND, LABEL_STUDIO, REVIEW, own_settings
from dermloop.stack.secrets import open_secrets


def adopt(home: Home) -> None:
    """Fills the gaps of this process's environment with what the home's own programs are told; never replaces."""
    for name, value in _settings(home).items():
        os.environ.setdefault(name, value)


def addresses(home: Home) -> dict[str, str]:
    """Addresses by program of a stack that is up; empty where none is."""
    try:
        return dict(json.loads(home.ready_file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _settings(home: Home) -> dict[str, str]:
    homes = {f"DERMLOOP_{prefix}_HOME": str(home.root) for prefix in ("ML", "REVIEW")}
    if not home.secrets.exists():
        return homes
    try:
        return {**own_settings(home, _ports(home), open_secrets(home.secrets)), **homes}
    except SecretsError:
        return homes


def _ports(home: Home) -> Ports:
    found = {name: urlsplit(url).port for name, url in addresses(home).items()}
    wanted = [found.get(name) for name in (LABEL_STUDIO, BACKEND, REVIEW)]
    return Ports(*(port for port in wanted if port)) if all(wanted) else Ports()
