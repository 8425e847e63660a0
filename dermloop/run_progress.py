"""How far a retraining's training is, read off the status files that its runs leave in the home folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

_PARTS = 2
"""A training has a detector and a classifier, each with a run of its own."""


def runs_since(home: Path, since: str | None) -> list[Mapping[str, Any]]:
    """The statuses of the newest runs that began after a moment, oldest first; runs are named by when they began."""
    newest = sorted((home / "runs").glob("*/status.json"), reverse=True)[:_PARTS]
    found = [_status(path) for path in reversed(newest)]
    return [run for run in found if since and str(run.get("started", "")) >= since]


def training_share(runs: Sequence[Mapping[str, Any]]) -> float:
    """How much of a training is done, in [0, 1], each part counting the same."""
    return min(sum(_share(run) for run in runs) / _PARTS, 1.0)


def last_word(runs: Sequence[Mapping[str, Any]]) -> str:
    """What the newest of these runs said last, with the share of the training; empty where none has begun."""
    return f"{runs[-1].get('text', '')} ({100 * training_share(runs):.0f} % of the training)" if runs else ""


def _share(run: Mapping[str, Any]) -> float:
    total = int(run.get("total") or 0)
    return 1.0 if run.get("state") == "done" else min(int(run.get("done") or 0) / total, 1.0) if total else 0.0


def _status(path: Path) -> Mapping[str, Any]:
    try:
        row = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return row if isinstance(row, dict) else {}
