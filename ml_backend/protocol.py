"""Label Studio's wire forms: request bodies in, answers out; no dict goes further in than this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeXml

from converters.label_studio.controls import TaskField
from ml_backend.errors import ProtocolError

START_TRAINING = "START_TRAINING"


@dataclass(frozen=True, slots=True)
class TaskImage:
    """A task to predict: its number (None where it has none yet) and the address of its picture (None if absent)."""

    id: int | None
    address: str | None

    @property
    def item(self) -> str:
        """How the task is called in messages."""
        return f"task {self.id}" if self.id is not None else "task"


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
    field = image_field(label_config)
    found = tuple(_task(task, number, field) for number, task in enumerate(tasks))
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


def image_field(label_config: str | None) -> str:
    """The key of task data that the labelling config's first Image shows; `image` without a readable config."""
    try:
        root = SafeXml.fromstring(label_config or "<View/>")
    except (SafeXml.ParseError, DefusedXmlException, ValueError):
        return TaskField.IMAGE.value
    values = (str(tag.get("value", "")) for tag in root.iter("Image"))
    return next((value[1:] for value in values if value.startswith("$")), TaskField.IMAGE.value)


def _object(body: Any, item: str) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise ProtocolError(item, type(body).__name__, "a JSON object", "Send Label Studio's request.")
    return body


def _task(task: Any, number: int, field: str) -> TaskImage:
    if not isinstance(task, dict):
        raise ProtocolError(f"/predict: tasks[{number}]", type(task).__name__, "a task object", "Send whole tasks.")
    data, task_id = task.get("data"), task.get("id")
    address = data.get(field) if isinstance(data, dict) else None
    return TaskImage(task_id if isinstance(task_id, int) else None, address if isinstance(address, str) else None)


def _drawn(context: Any) -> tuple[Mapping[str, Any], ...] | None:
    if not isinstance(context, dict):
        return None
    result = context.get("result")
    return tuple(row for row in result if isinstance(row, dict)) if isinstance(result, list) else ()
