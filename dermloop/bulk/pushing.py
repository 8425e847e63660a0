"""Stored readings of tasks brought into Label Studio; tasks that have them already are left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import orjson

from dermloop.bulk.plan import Plan
from dermloop.errors import BulkError
from ml_backend.label_studio import NewPrediction
from ml_backend.preannotate import ProjectClient

_CHUNK = 100


def push(plan: Plan, client: ProjectClient, tell: Callable[[int, int], None]) -> int:
    """How many predictions were stored; again, only those that are missing. Raises BulkError before all is read."""
    if plan.project is None:
        raise BulkError(f"run {plan.name}", "pictures without tasks", "a run on project:NUMBER", "Use its results.")
    if pending := plan.pending():
        raise BulkError(f"run {plan.name}", f"{len(pending)} shards to read", "none", "Run or submit it first.")
    due = {task.id for task in client.tasks(plan.project) if plan.version not in task.model_versions}
    rows = [row for row in _rows(plan) if row.task_id in due]
    for start in range(0, len(rows), _CHUNK):
        client.push(plan.project, rows[start : start + _CHUNK])
        tell(min(start + _CHUNK, len(rows)), len(rows))
    client.show_version(plan.project, plan.version)
    return len(rows)


def _rows(plan: Plan) -> Iterator[NewPrediction]:
    for shard in range(plan.shards):
        with plan.results_file(shard).open("rb") as stream:
            for line in stream:
                row = orjson.loads(line)
                if "error" not in row:
                    yield NewPrediction(row["task"], tuple(row["result"]), row["score"], row["model_version"])
