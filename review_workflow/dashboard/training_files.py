"""What training left in the home folder, as the dashboard shows it: runs with their progress, promotions, the champion.

The files are the contract (docs/design.md); nothing of training is imported. What cannot be read is shown as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

_NEWEST = 20


@dataclass(frozen=True, slots=True)
class RunLine:
    """One training run: what it is, where it stands, its share done in [0, 1], and its last word."""

    name: str
    kind: str
    state: str
    updated: str
    done: float
    text: str


@dataclass(frozen=True, slots=True)
class PromotionLine:
    """One change of the champion."""

    at: str
    version: str
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """All of it, newest first; `champion` is empty where no model was promoted yet."""

    champion: str
    runs: tuple[RunLine, ...]
    promotions: tuple[PromotionLine, ...]


def read(home: Path) -> TrainingFiles:
    """What lies in a home folder."""
    folders = sorted((path.parent for path in (home / "runs").glob("*/status.json")), reverse=True)
    champion = _json(home / "models" / "champion.json")
    return TrainingFiles(
        str(champion.get("version", "")),
        tuple(_run(folder) for folder in folders[:_NEWEST]),
        tuple(reversed(_promotions(home / "models" / "promotions.jsonl")))[:_NEWEST],
    )


def _run(folder: Path) -> RunLine:
    row = _json(folder / "status.json")
    if not row:
        return RunLine(folder.name, "", "unreadable", "", 0.0, "its status file cannot be read")
    total = int(row.get("total") or 0)
    done = int(row.get("done") or 0) / total if total else 0.0
    kind, state, updated = (str(row.get(name, "")) for name in ("kind", "state", "updated"))
    return RunLine(folder.name, kind, state, updated[:19].replace("T", " "), min(done, 1.0), str(row.get("text", "")))


def _promotions(path: Path) -> list[PromotionLine]:
    if not path.is_file():
        return []
    rows = [_parsed(line) for line in path.read_bytes().splitlines() if line.strip()]
    return [
        PromotionLine(
            str(row.get("when", ""))[:19].replace("T", " "),
            str(row.get("version", "unreadable line")),
            str(row.get("who", "")),
            " · ".join(str(row[name]) for name in ("change", "why") if row.get(name)),
        )
        for row in rows
    ]


def _json(path: Path) -> dict[str, Any]:
    return _parsed(path.read_bytes()) if path.is_file() else {}


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
