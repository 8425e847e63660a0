"""Label Studio's webhooks: who may send them, and the tasks they hint at; their content is never believed."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from review_workflow.errors import SecretError, WebhookError


@dataclass(frozen=True, slots=True)
class Hint:
    """Something happened to these tasks of a project."""

    project_id: int
    task_ids: tuple[int, ...]
    action: str


def check_secret(given: str | None, expected: str) -> None:
    """Raises SecretError unless the header carries the shared secret."""
    if not expected or not hmac.compare_digest((given or "").encode(), expected.encode()):
        raise SecretError("webhook", "a wrong secret", "the secret header of our projects", "Run `review setup`.")


def check_bearer(given: str | None, expected: str, is_local: bool) -> None:
    """Raises SecretError unless the bearer token is the expected one; where none is, unless the caller is local."""
    proven = hmac.compare_digest((given or "").encode(), expected.encode())
    if not (proven if expected else is_local):
        cure = "Set DERMLOOP_REVIEW_METRICS_TOKEN and send it as a bearer token."
        raise SecretError("metrics", "a wrong secret", "the operator's token", cure)


def parse(body: bytes) -> Hint:
    """The hint of a webhook's body; raises WebhookError where there is none."""
    try:
        payload = orjson.loads(body)
        action = str(payload["action"])
        project_id = int(payload["project"]["id"])
        return Hint(project_id, tuple(sorted(_task_ids(payload))), action)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise WebhookError(
            "webhook body", type(error).__name__, "action, project and tasks as Label Studio sends them", "Resend it."
        ) from error


def _task_ids(payload: Mapping[str, Any]) -> set[int]:
    found = [payload["task"]] if isinstance(payload.get("task"), dict) else []
    found += payload.get("tasks") or []
    annotations = payload.get("annotation") or []
    for annotation in annotations if isinstance(annotations, list) else [annotations]:
        if annotation.get("task") is not None:
            found.append({"id": annotation["task"]})
    return {int(task["id"]) for task in found}
