"""Label Studio as the review needs it: the only door to its SDK, with wire dicts on the far side only."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
import orjson
from label_studio_sdk import LabelStudio
from label_studio_sdk.actions import PrepareParamsRequestRequestSelectedItemsIncluded
from label_studio_sdk.core.api_error import ApiError

from converters.annotation import Annotation, Finding
from converters.geometry import ImageSize
from converters.label_studio import controls, results
from converters.label_studio.controls import TaskField
from converters.taxonomy import Taxonomy
from review_workflow.errors import LabelStudioError
from review_workflow.label_studio import ModelSuggestion, SubmittedAnnotation, TaskSnapshot
from review_workflow.presentation import Resumed, Suggestion, TaskDraft
from telemetry import request_id, tracing

log = logging.getLogger(__name__)
_PAGE = 200
_KEYS_PAGE = 1000
_DESK_ACTION = "dermloop_put_on_desk"
_LS_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_T = TypeVar("_T")


class Gateway:
    """One Label Studio; every call raises LabelStudioError where it is away or refuses.

    `heatmap` gives the link to a picture's heat-map by the picture's address, or None where there are none.
    """

    def __init__(
        self,
        url: str,
        token: str,
        taxonomy: Taxonomy,
        timeout: float = 30.0,
        masks: bool = False,
        heatmap: Callable[[str], str | None] = lambda _address: None,
    ) -> None:
        self._url = url.rstrip("/")
        self._masks = masks
        self._taxonomy = taxonomy
        self._heatmap = heatmap
        self._client = httpx.Client(timeout=timeout, follow_redirects=True, event_hooks={"request": [request_id.stamp]})
        self.sdk = LabelStudio(base_url=self._url, api_key=token, httpx_client=self._client)

    def close(self) -> None:
        """Gives the connections back."""
        self._client.close()

    def create_tasks(self, project_id: int, drafts: Sequence[tuple[TaskDraft, ImageSize]]) -> tuple[int, ...]:
        """The ids of new tasks, in the order of the drafts."""
        rows = [self._task_row(draft, size) for draft, size in drafts]
        reply = self.call(
            "create tasks",
            lambda: self.sdk.projects.import_tasks(project_id, request=rows, return_task_ids=True),
        )
        made = tuple(int(task_id) for task_id in reply.task_ids or ())
        if len(made) != len(rows):
            raise LabelStudioError("create tasks", len(made), f"{len(rows)} task ids", "Try again.")
        return made

    def preload(self, project_id: int, version: str) -> None:
        """Makes the label stream start from predictions of this version; Label Studio wants one of them to exist."""
        project = self.call("read project", lambda: self.sdk.projects.get(project_id))
        if project.model_version != version:
            self.call("select predictions", lambda: self.sdk.projects.update(project_id, model_version=version))

    def find_task(self, project_id: int, key: str) -> int | None:
        """The id of the task with a key, the oldest where there are several, or None."""
        query = _query(("data.key", "equal", "String", key))
        page = self.call(
            "find task",
            lambda: (
                self.sdk.tasks.list(
                    project=project_id, query=query, fields="task_only", include="id,data", page_size=10
                ).items
            ),
        )
        found = [t.id for t in page or () if t.id is not None and (t.data or {}).get(TaskField.KEY) == key]
        return min(found, default=None)

    def put_on_desk(self, project_id: int, task_id: int, resumed: Resumed, size: ImageSize) -> bool:
        """Whether the reader finds a draft there, of their earlier boxes or what they made of them."""
        chosen = PrepareParamsRequestRequestSelectedItemsIncluded(all_=False, included=[task_id])
        body = {"reader": resumed.reader, "result": self._rows(resumed.annotation, size)}
        try:
            self.sdk.actions.create(
                id=_DESK_ACTION,
                project=project_id,
                selected_items=chosen,
                request_options={"additional_body_parameters": body},
            )
        except ApiError as error:
            if error.status_code != HTTPStatus.FORBIDDEN and "Can't find" not in str(error.body):
                raise _refused("put on desk", error) from error
            log.warning(
                "no draft on task %d: Label Studio lacks the actions, or ours is not its first account", task_id
            )
            return False
        except httpx.HTTPError as error:
            raise _away("put on desk", error) from error
        return True

    def update_task(self, task_id: int, draft: TaskDraft) -> bool:
        """Whether the task was there to be rewritten."""
        return self._unless_missing("update task", lambda: self.sdk.tasks.update(str(task_id), data=self._data(draft)))

    def delete_task(self, task_id: int) -> bool:
        """Whether the task was there to be deleted."""
        return self._unless_missing("delete task", lambda: self.sdk.tasks.delete(str(task_id)))

    def task(self, task_id: int) -> TaskSnapshot | None:
        """The task with its annotations, or None where it is gone."""
        try:
            return _snapshot(self.sdk.tasks.get(str(task_id)))
        except ApiError as error:
            if error.status_code == 404:
                return None
            raise _refused("read task", error) from error
        except httpx.HTTPError as error:
            raise _away("read task", error) from error

    def tasks(self, project_id: int, task_ids: Sequence[int]) -> Iterator[TaskSnapshot]:
        """The tasks with these ids that still exist, with their annotations."""
        for start in range(0, len(task_ids), _PAGE):
            wanted = sorted(task_ids)[start : start + _PAGE]
            yield from map(_snapshot, self._pages(project_id, [("id", "in_list", "List", wanted)]))

    def task_keys(self, project_id: int) -> dict[int, str]:
        """The keys of all tasks of a project by id (ids are used again once their task is gone)."""
        found: dict[int, str] = {}
        while True:
            query = _query(("id", "greater", "Number", max(found, default=0)))
            page = self.call(
                "list task keys",
                lambda query=query: list(  # type: ignore[misc]
                    self.sdk.tasks.list(
                        project=project_id,
                        query=query,
                        fields="task_only",
                        include="id,data",
                        page=1,
                        page_size=_KEYS_PAGE,
                    ).items
                    or ()
                ),
            )
            if not page:
                return found
            found.update((int(task.id), str((task.data or {}).get(TaskField.KEY))) for task in page)

    def changed(self, project_id: int, since: datetime | None) -> Iterator[TaskSnapshot]:
        """Every task with an annotation that changed at or after a moment; all of those where the moment is None."""
        known: set[int] = set()
        for counter in ("total_annotations", "cancelled_annotations"):
            for task in self._pages(project_id, [*_since(since), (counter, "greater", "Number", 0)]):
                if task.id not in known:
                    known.add(task.id)
                    yield _snapshot(task)

    def suggestions(self, project_id: int, since: datetime | None, after: int = 0) -> Iterator[ModelSuggestion]:
        """The newest prediction of each unanswered task that changed at or after a moment, by task, beyond an id."""
        predicted = ("total_predictions", "greater", "Number", 0)
        unanswered = ("total_annotations", "equal", "Number", 0)
        for task in self._pages(project_id, [*_since(since), predicted, unanswered], after):
            newest = max(map(_row, task.predictions or ()), key=lambda row: int(row["id"]), default=None)
            if newest is not None:
                yield _suggestion(task, newest)

    def users(self) -> dict[int, str]:
        """E-mail addresses by user id."""
        found = self.call("list users", lambda: list(self.sdk.users.list()))
        return {int(user.id): str(user.email) for user in found if user.id is not None}

    def call(self, what: str, request: Callable[[], _T]) -> _T:
        """The reply of an SDK call, its failures turned into LabelStudioError."""
        try:
            with tracing.span(f"Label Studio: {what}"):
                return request()
        except ApiError as error:
            raise _refused(what, error) from error
        except httpx.HTTPError as error:
            raise _away(what, error) from error

    def _unless_missing(self, what: str, request: Callable[[], object]) -> bool:
        try:
            request()
        except ApiError as error:
            if error.status_code == 404:
                return False
            raise _refused(what, error) from error
        except httpx.HTTPError as error:
            raise _away(what, error) from error
        return True

    def _pages(self, project_id: int, filters: list[tuple[str, str, str, Any]], last: int = 0) -> Iterator[Any]:
        while True:
            query = _query(*filters, ("id", "greater", "Number", last))
            page = self.call(
                "list tasks",
                lambda query=query: list(  # type: ignore[misc]
                    self.sdk.tasks.list(
                        project=project_id, query=query, fields="all", page=1, page_size=_PAGE, resolve_uri=False
                    ).items
                    or ()
                ),
            )
            yield from page
            if len(page) < _PAGE:
                return
            last = max(int(task.id) for task in page)

    def _task_row(self, draft: TaskDraft, size: ImageSize) -> dict[str, Any]:
        return {
            "data": self._data(draft),
            "predictions": [self._prediction(suggestion, size) for suggestion in draft.suggestions],
        }

    def _data(self, draft: TaskDraft) -> dict[str, Any]:
        """The task's data: its columns, and the link to the heat-map; whoever reads blind gets none."""
        row: dict[str, Any] = dict(draft.columns)
        link = None if row.get(TaskField.BLIND) else self._heatmap(str(row.get(TaskField.IMAGE, "")))
        return row if link is None else {**row, TaskField.HEATMAP.value: link}

    def _prediction(self, suggestion: Suggestion, size: ImageSize) -> dict[str, Any]:
        return {"model_version": suggestion.model_version, "result": self._rows(suggestion.annotation, size)}

    def _rows(self, annotation: Annotation, size: ImageSize) -> list[dict[str, Any]]:
        rows = results.encode(annotation.lesions, size, self._taxonomy, self._masks)
        rows += results.encode_redactions(annotation.redactions, size)
        if annotation.finding is not Finding.NOT_LOOKED_AT:
            rows.append(results.encode_choice(controls.FINDING, controls.FINDING_LABELS[annotation.finding.value]))
        quality = dict(annotation.answers).get(controls.QUALITY)
        if quality:
            rows.append(results.encode_choice(controls.QUALITY, quality))
        return rows


def encode_result(annotation: Annotation, size: ImageSize, taxonomy: Taxonomy) -> bytes:
    """Canonical JSON of the regions of an annotation, as Label Studio would hold them."""
    return _canonical(results.encode(annotation.lesions, size, taxonomy))


def _since(moment: datetime | None) -> list[tuple[str, str, str, Any]]:
    if moment is None:
        return []
    return [("updated_at", "greater_or_equal", "Datetime", moment.astimezone(UTC).strftime(_LS_TIME))]


def _suggestion(task: Any, prediction: Mapping[str, Any]) -> ModelSuggestion:
    key = (task.data or {}).get(TaskField.KEY)
    return ModelSuggestion(
        task_id=int(task.id),
        key=key if isinstance(key, str) else "",
        model_version=str(prediction.get("model_version") or ""),
        updated_at=_moment(task.updated_at),
        result=_canonical(prediction.get("result") or []),
    )


def _snapshot(task: Any) -> TaskSnapshot:
    versions = {int(row["id"]): row.get("model_version") for row in map(_row, task.predictions or ())}
    annotations = tuple(_annotation(_row(row), versions) for row in task.annotations or ())
    data = task.data or {}
    key = data.get(TaskField.KEY)
    return TaskSnapshot(
        task_id=int(task.id),
        project_id=int(_identifier(task.project) or 0),
        key=key if isinstance(key, str) else "",
        updated_at=_moment(task.updated_at),
        annotations=tuple(sorted(annotations, key=lambda a: a.annotation_id)),
    )


def _row(row: Any) -> dict[str, Any]:
    return row if isinstance(row, dict) else dict(row.model_dump())


def _annotation(raw: Mapping[str, Any], versions: Mapping[int, str | None]) -> SubmittedAnnotation:
    parent = _identifier(raw.get("parent_prediction"))
    return SubmittedAnnotation(
        annotation_id=int(raw["id"]),
        completed_by=_identifier(raw.get("completed_by")),
        updated_by=_identifier(raw.get("updated_by")),
        created_at=_moment(raw.get("created_at")),
        updated_at=_moment(raw.get("updated_at")),
        lead_time=raw.get("lead_time"),
        cancelled=bool(raw.get("was_cancelled")),
        result=_canonical(raw.get("result") or []),
        started_from=versions.get(parent) if parent is not None else None,
    )


def _identifier(value: Any) -> int | None:
    if isinstance(value, dict):
        value = value.get("id")
    return int(value) if value is not None else None


def _moment(value: Any) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _query(*filters: tuple[str, str, str, Any]) -> str:
    items = [
        {"filter": f"filter:tasks:{name}", "operator": operator, "type": kind, "value": value}
        for name, operator, kind, value in filters
    ]
    return json.dumps({"filters": {"conjunction": "and", "items": items}, "ordering": ["tasks:id"]})


def _refused(what: str, error: ApiError) -> LabelStudioError:
    detail = f"status {error.status_code}: {str(error.body)[:300]}"
    return LabelStudioError(what, detail, "Label Studio's consent", "Look at its log; `review setup` repairs projects.")


def _away(what: str, error: Exception) -> LabelStudioError:
    return LabelStudioError(
        what, str(error) or type(error).__name__, "Label Studio to answer", "Start it; we try again."
    )
