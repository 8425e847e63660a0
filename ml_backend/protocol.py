"""Label Studio's wire forms: request bodies in, answers out; no dict goes further in than this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_backend.errors import ProtocolError

if TYPE_CHECKING:
    from ml_backend.jobs import Job

START_TRAINING = "START_TRAINING"
_JOB_STATES = {
    "pending": ("queued", "has waited for a worker since"),
    "running": ("started", "has run since"),
    "succeeded": ("finished", "was done at"),
    "failed": ("failed", "failed at"),
    "cancelled": ("canceled", "was cancelled at"),
}
"""Label Studio's word for a job's state, and ours before the moment it has been so from."""


@dataclass(frozen=True, slots=True)
class TaskImage:
    """A task to predict: its number (None where it has none yet) and its data as text."""

    id: int | None
    data: tuple[tuple[str, str], ...]

    @property
    def item(self) -> str:
        """How the task is called in messages."""
        return f"task {self.id}" if self.id is not None else "task"

    def get(self, field: str) -> str | None:
        """The value of a data field, or None where it is absent or no text."""
        return dict(self.data).get(field)


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """What `/predict` asks for: tasks, the labelling config, and the regions just drawn where it is interactive."""

    tasks: tuple[TaskImage, ...]
    label_config: str | None
    drawn: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True)
class SetupRequest:
    """What `/setup` tells: the project's labelling config."""

    project: str
    label_config: str | None


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """What Label Studio reports: the action and the project it happened in."""

    action: str
    project: str


def decode_predict(body: Any) -> PredictRequest:
    """The request in a JSON body; raises ProtocolError naming what is missing."""
    row = _object(body, "/predict")
    tasks = row.get("tasks")
    if not isinstance(tasks, list):
        raise ProtocolError("/predict: tasks", type(tasks).__name__, "a list of tasks", "Send Label Studio's request.")
    params = row.get("params")
    context = params.get("context") if isinstance(params, dict) else None
    config = row.get("label_config")
    return decode_tasks(tasks, config if isinstance(config, str) else None, context)


def decode_tasks(tasks: Sequence[Any], label_config: str | None, context: Any = None) -> PredictRequest:
    """The request of Label Studio's task list and context, as a model class receives them."""
    found = tuple(_task(task, number) for number, task in enumerate(tasks))
    return PredictRequest(found, label_config, _drawn(context))


def decode_setup(body: Any) -> SetupRequest:
    """The request in a JSON body; raises ProtocolError where it is no object."""
    row = _object(body, "/setup")
    config = row.get("schema")
    return SetupRequest(str(row.get("project", "")), config if isinstance(config, str) else None)


def decode_webhook(body: Any) -> WebhookEvent:
    """The event in a JSON body; raises ProtocolError without an action."""
    row = _object(body, "/webhook")
    action = row.get("action")
    if not isinstance(action, str):
        raise ProtocolError("/webhook: action", action, "the name of an action", "Send Label Studio's request.")
    project = row.get("project")
    return WebhookEvent(action, str(project.get("id", "")) if isinstance(project, dict) else str(project or ""))


def encode_job(job: Job) -> dict[str, Any]:
    """What `/job_status` says of a job: Label Studio's fields, and a sentence that people can read."""
    status, word = _JOB_STATES[job.state.value]
    moments = {"created_at": job.created_at, "started_at": job.started_at, "ended_at": job.finished_at}
    last = job.finished_at or job.started_at or job.created_at
    told = f"{word} {last[:16].replace('T', ' ')} UTC" + (f": {job.detail}" if job.detail else "")
    return {"job_status": status, "summary": told, "detail": job.detail, **moments}


def _object(body: Any, item: str) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        found = "no JSON" if body is None else type(body).__name__
        raise ProtocolError(item, found, "a JSON object", "Send Label Studio's request.")
    return body


def _task(task: Any, number: int) -> TaskImage:
    if not isinstance(task, dict):
        raise ProtocolError(f"/predict: tasks[{number}]", type(task).__name__, "a task object", "Send whole tasks.")
    data, task_id = task.get("data"), task.get("id")
    texts = data.items() if isinstance(data, dict) else ()
    kept = tuple((str(key), value) for key, value in texts if isinstance(value, str))
    return TaskImage(task_id if isinstance(task_id, int) else None, kept)


def _drawn(context: Any) -> tuple[Mapping[str, Any], ...] | None:
    if not isinstance(context, dict):
        return None
    result = context.get("result")
    return tuple(row for row in result if isinstance(row, dict)) if isinstance(result, list) else ()
