"""The three linked projects as they should be, and the one idempotent pass that makes or repairs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.label_studio.config import labelling_config
from converters.label_studio.controls import TaskField, Tier
from converters.taxonomy import Taxonomy
from review_workflow.errors import LabelStudioError
from review_workflow.gateway import Gateway
from review_workflow.people import Person

SECRET_HEADER = "X-Dermloop-Secret"
MODEL_TITLE = "dermloop"
WEBHOOK_ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_DELETED",
)
TITLES = {
    Tier.TECHNICIAN: "dermloop 1 · technician",
    Tier.DERMATOLOGIST: "dermloop 2 · dermatologist",
    Tier.QA: "dermloop 3 · QA",
}
_HIDDEN = (
    *("inner_id", "completed_at", "cancelled_annotations", "total_predictions", "annotators", "annotations_results"),
    *("annotations_ids", "predictions_score", "predictions_model_versions", "predictions_results", "file_upload"),
    *("storage_filename", "created_at", "updated_at", "updated_by", "avg_lead_time", "draft_exists"),
)
_FILTER = ("filter", "operator", "type", "value")
_INNER = (TaskField.IMAGE_ID, TaskField.KEY, TaskField.NOTE, TaskField.BLIND, TaskField.HEATMAP)
INSTRUCTIONS = {
    Tier.TECHNICIAN: (
        "<p>Outline <b>every</b> lesion with a box and name it (keys 1 to 9). No lesion at all: <b>Lesion-free</b>. "
        "Nothing can be judged: <b>Ungradable</b>. Say how good the picture is, then submit.</p>"
        "<p>Work that comes back says why in the note on top.</p>"
    ),
    Tier.DERMATOLOGIST: (
        "<p>The technician's boxes are drawn. <b>Accept</b> them as they are, or <b>Correct</b> them, or "
        "<b>Send back</b> with one sentence that says what to do.</p>"
        "<p>Open the tab with your name and choose <b>Label All Tasks</b>.</p>"
    ),
    Tier.QA: (
        "<p>The note on top says what everybody said. <b>Approve</b>, <b>Correct</b> (your boxes decide), "
        "<b>Send back</b> or <b>Exclude</b>, the last two with a reason.</p>"
    ),
}


@dataclass(frozen=True, slots=True)
class SetupOptions:
    """Where the other programs are; None leaves a connection out. `storage` is a folder below the document root.

    With `masks` dermatologists and QA get a brush beside the boxes.
    """

    webhook_url: str | None = None
    webhook_secret: str = ""
    storage: Path | None = None
    ml_url: str | None = None
    ml_user: str = ""
    ml_password: str = ""
    masks: bool = False


@dataclass(frozen=True, slots=True)
class SetupReport:
    """The projects by tier, what had to be made or repaired, and what could not be (both empty where all was right)."""

    projects: tuple[tuple[Tier, int], ...]
    changes: tuple[str, ...]
    problems: tuple[str, ...] = ()

    def project(self, tier: Tier) -> int:
        """The project id of a tier."""
        return dict(self.projects)[tier]


def set_up(
    gateway: Gateway,
    taxonomy: Taxonomy,
    known: Mapping[Tier, int],
    options: SetupOptions,
    people: Sequence[Person] = (),
) -> SetupReport:
    """The three projects, made or repaired; `known` are ids of an earlier pass. A second pass does nothing."""
    changes: list[str] = []
    existing = {int(p.id): p for p in gateway.call("list projects", lambda: list(gateway.sdk.projects.list()))}
    projects = {}
    for tier in Tier:
        wanted = _wanted(tier, taxonomy, options.masks)
        project_id = _project(gateway, tier, wanted, existing, known.get(tier), changes)
        projects[tier] = project_id
        _webhook(gateway, project_id, options, changes)
        _views(gateway, project_id, tier, people, changes)
    if options.storage is not None:
        _storage(gateway, projects[Tier.TECHNICIAN], options.storage, changes)
    problems = []
    if options.ml_url is not None:
        try:
            _ml_backend(gateway, projects[Tier.TECHNICIAN], options, changes)
        except LabelStudioError as error:
            problems.append(f"The ML backend at {options.ml_url} is not connected: {error}")
    return SetupReport(tuple(projects.items()), tuple(changes), tuple(problems))


def _wanted(tier: Tier, taxonomy: Taxonomy, masks: bool) -> dict[str, Any]:
    return {
        "title": TITLES[tier],
        "label_config": labelling_config(taxonomy, tier, masks and tier is not Tier.TECHNICIAN),
        "expert_instruction": INSTRUCTIONS[tier],
        "show_instruction": True,
        "show_skip_button": False,
        "enable_empty_annotation": True,
        "show_collab_predictions": True,
        "maximum_annotations": 1,
        "sampling": "Sequential sampling",
    }


def _project(
    gateway: Gateway,
    tier: Tier,
    wanted: Mapping[str, Any],
    existing: Mapping[int, Any],
    known: int | None,
    changes: list[str],
) -> int:
    same = [found for found in existing if existing[found].title == TITLES[tier]]
    project_id = known if known in existing else min(same, default=None)
    if project_id is None:
        made = gateway.call("create project", lambda: gateway.sdk.projects.create(**_creatable(wanted)))
        changes.append(f"created project {TITLES[tier]}")
        project_id = int(made.id)
    found = gateway.call("read project", lambda: gateway.sdk.projects.get(project_id))
    wrong = {name: value for name, value in wanted.items() if getattr(found, name, None) != value}
    if wrong:
        gateway.call("repair project", lambda: gateway.sdk.projects.update(project_id, **wrong))
        changes.append(f"set {', '.join(sorted(wrong))} of project {TITLES[tier]}")
    return project_id


def _creatable(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: wanted[name] for name in ("title", "label_config", "expert_instruction", "show_instruction")}


def _webhook(gateway: Gateway, project_id: int, options: SetupOptions, changes: list[str]) -> None:
    if options.webhook_url is None:
        return
    wanted: dict[str, Any] = {
        "url": options.webhook_url,
        "headers": {SECRET_HEADER: options.webhook_secret},
        "actions": list(WEBHOOK_ACTIONS),
        "send_for_all_actions": False,
        "send_payload": True,
        "is_active": True,
    }
    hooks = gateway.call("list webhooks", lambda: gateway.sdk.webhooks.list(project=str(project_id)))
    ours = [hook for hook in hooks if hook.headers and SECRET_HEADER in hook.headers]
    for spare in ours[1:]:
        gateway.call("delete webhook", lambda spare=spare: gateway.sdk.webhooks.delete(spare.id))  # type: ignore[misc]
    if not ours:
        gateway.call("create webhook", lambda: gateway.sdk.webhooks.create(project=project_id, **wanted))
        changes.append(f"created the webhook of project {project_id}")
    elif any(_plain(getattr(ours[0], name)) != _plain(value) for name, value in wanted.items()):
        gateway.call("repair webhook", lambda: gateway.sdk.webhooks.update(ours[0].id, **wanted))
        changes.append(f"repaired the webhook of project {project_id}")


def _plain(value: Any) -> Any:
    return sorted(str(item) for item in value) if isinstance(value, (list, tuple, set)) else value


def _storage(gateway: Gateway, project_id: int, folder: Path, changes: list[str]) -> None:
    local = gateway.sdk.import_storage.local
    found = gateway.call("list storages", lambda: local.list(project=project_id))
    if any(storage.path == str(folder) for storage in found):
        return
    gateway.call("create storage", lambda: local.create(project=project_id, path=str(folder), title="dermloop images"))
    changes.append("created the image storage")


def _ml_backend(gateway: Gateway, project_id: int, options: SetupOptions, changes: list[str]) -> None:
    wanted: dict[str, Any] = {"url": options.ml_url, "title": MODEL_TITLE, "is_interactive": True}
    if options.ml_user:
        wanted |= {"auth_method": "BASIC_AUTH", "basic_auth_user": options.ml_user}
    secret = {"basic_auth_pass": options.ml_password} if options.ml_user else {}
    backends = gateway.call("list ML backends", lambda: gateway.sdk.ml.list(project=project_id))
    if not backends:
        gateway.call("connect ML backend", lambda: gateway.sdk.ml.create(project=project_id, **wanted, **secret))
        changes.append("connected the ML backend")
    elif any(getattr(backends[0], name) != value for name, value in wanted.items()):
        backend_id = backends[0].id
        gateway.call(
            "repair ML backend", lambda: gateway.sdk.ml.update(backend_id, project=project_id, **wanted, **secret)
        )
        changes.append("repaired the ML backend")
    project = gateway.call("read project", lambda: gateway.sdk.projects.get(project_id))
    if not project.model_version:
        gateway.call("select model", lambda: gateway.sdk.projects.update(project_id, model_version=MODEL_TITLE))
        changes.append("selected the ML backend's predictions")


def _views(gateway: Gateway, project_id: int, tier: Tier, people: Sequence[Person], changes: list[str]) -> None:
    found = gateway.call("list tabs", lambda: gateway.sdk.views.list(project=project_id))
    known = {str(_view_data(view).get("title")): view for view in found}
    wanted = _tabs(tier, people)
    for title, data in wanted.items():
        if title not in known:
            _create_view(gateway, project_id, data)
            changes.append(f"created tab {title} in project {project_id}")
        elif _shown_by(_view_data(known[title])) != _shown_by(data):
            _repair_view(gateway, known[title].id, project_id, data)
            changes.append(f"repaired tab {title} in project {project_id}")


def _create_view(gateway: Gateway, project_id: int, data: dict[str, Any]) -> None:
    gateway.call("create tab", lambda: gateway.sdk.views.create(project=project_id, data=data))


def _repair_view(gateway: Gateway, view_id: int, project_id: int, data: dict[str, Any]) -> None:
    gateway.call("repair tab", lambda: gateway.sdk.views.update(str(view_id), project=project_id, data=data))


def _view_data(view: Any) -> dict[str, Any]:
    data = view.data if view.data is not None else {}
    return data if isinstance(data, dict) else dict(data)


def _shown_by(data: Mapping[str, Any]) -> tuple[object, ...]:
    """What makes a tab what it is, without the ids and defaults that Label Studio adds: columns, filters, order."""
    filters = data.get("filters") or {}
    items = [tuple(item.get(name) for name in _FILTER) for item in filters.get("items") or ()]
    return data.get("hiddenColumns"), filters.get("conjunction"), items, data.get("ordering")


def _tabs(tier: Tier, people: Sequence[Person]) -> dict[str, dict[str, Any]]:
    """Tabs by title: the whole queue, then the reader's own, since Label Studio has no filter for "mine"."""
    waiting = _filter("total_annotations", "equal", "Number", 0)
    tabs = {"To do": [waiting]}
    if tier is Tier.TECHNICIAN:
        tabs["Sent back"] = [waiting, _filter(f"data.{TaskField.REASON}", "contains", "String", "(")]
    if tier is Tier.DERMATOLOGIST:
        readers = sorted(person.email for person in people if person.may_answer(tier))
        tabs |= {f"For {e}": [waiting, _filter(f"data.{TaskField.ASSIGNEE}", "equal", "String", e)] for e in readers}
    if tier is Tier.QA:
        tabs["Disputed"] = [waiting, _filter(f"data.{TaskField.STATE}", "equal", "String", "disputed")]
    return {title: _tab(title, items) for title, items in tabs.items()}


def _tab(title: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    hidden = [*_HIDDEN, *(f"data.{name}" for name in _INNER)]
    columns = [f"tasks:{name}" for name in hidden]
    return {
        "title": title,
        "type": "list",
        "target": "tasks",
        "filters": {"conjunction": "and", "items": items},
        "ordering": [f"-tasks:data.{TaskField.PRIORITY}"],
        "hiddenColumns": {"explore": columns, "labeling": columns},
        "gridWidth": 4,
    }


def _filter(name: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{name}", "operator": operator, "type": kind, "value": value}
