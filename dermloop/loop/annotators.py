"""A person at Label Studio's API: sees the open tasks of a project, reads what is shown, submits an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from converters.annotation import Finding, Lesion
from converters.geometry import ImageSize
from converters.label_studio import controls, results
from converters.label_studio.controls import TaskField
from converters.taxonomy import Taxonomy
from dermloop.loop.readers import Reading, with_origin

_PAGE = 200
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What somebody answered before: the author (a model version or a reader) and the marked lesions."""

    author: str
    lesions: tuple[Lesion, ...]
    prediction_id: int


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A task that nobody has answered: its place in the review, and what the page shows."""

    task_id: int
    image_id: str
    round: int
    assignee: str
    note: str
    suggestions: tuple[Suggestion, ...]


class Annotator:
    """One signed-in person with their own access token."""

    def __init__(self, url: str, email: str, token: str, taxonomy: Taxonomy) -> None:
        self.email = email
        self._connections = httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=True)
        self._client = LabelStudio(base_url=url, api_key=token, httpx_client=self._connections)
        self._taxonomy = taxonomy

    def close(self) -> None:
        """Gives the connections back."""
        self._connections.close()

    def open_tasks(self, project_id: int, size_of: Callable[[str], ImageSize]) -> list[OpenTask]:
        """The unanswered tasks of a project that are this person's or nobody's, in task order."""
        found = (self._read(task, size_of) for task in self._tasks(project_id) if not task.annotations)
        return [task for task in found if task.assignee in ("", self.email)]

    def suggestion_versions(self, project_id: int) -> dict[int, tuple[str, ...]]:
        """The model versions of the predictions on each unanswered task of a project, by task id."""
        return {
            task.id: tuple(str(prediction.get("model_version")) for prediction in map(_plain, task.predictions or ()))
            for task in self._tasks(project_id)
            if not task.annotations
        }

    def submit(self, task: OpenTask, reading: Reading, size: ImageSize) -> bool:
        """Whether Label Studio took the answer; it does not where the task was called back after it was opened.

        The answer names the suggestion that it started from, as the browser's does.
        """
        suggested = task.suggestions[0].lesions if task.suggestions else ()
        result = results.encode(with_origin(reading.lesions, suggested), size, self._taxonomy)
        result.append(results.encode_choice(controls.FINDING, _finding_label(reading.finding)))
        if reading.verdict is not None:
            result.append(results.encode_choice(controls.VERDICT, reading.verdict))
        if reading.reason:
            result.append(results.encode_text(controls.REASON, reading.reason))
        parent = {"parent_prediction": task.suggestions[0].prediction_id} if task.suggestions else {}
        try:
            self._client.annotations.create(id=task.task_id, result=result, lead_time=reading.lead_time, **parent)
        except ApiError:
            if self._exists(task.task_id):
                raise
            return False
        return True

    def _exists(self, task_id: int) -> bool:
        try:
            self._client.tasks.get(id=str(task_id))
        except ApiError as error:
            if error.status_code == HTTPStatus.NOT_FOUND:
                return False
            raise
        return True

    def _tasks(self, project_id: int) -> Iterator[Any]:
        yield from self._client.tasks.list(project=project_id, fields="all", page_size=_PAGE)

    def _read(self, task: Any, size_of: Callable[[str], ImageSize]) -> OpenTask:
        data = task.data
        image_id = data[TaskField.IMAGE_ID]
        predictions = [_plain(prediction) for prediction in task.predictions or ()]
        return OpenTask(
            task_id=task.id,
            image_id=image_id,
            round=int(data[TaskField.KEY].split(":")[2]),
            assignee=data.get(TaskField.ASSIGNEE) or "",
            note=data.get(TaskField.NOTE) or "",
            suggestions=tuple(self._suggestion(one, size_of(image_id)) for one in predictions),
        )

    def _suggestion(self, prediction: dict[str, Any], size: ImageSize) -> Suggestion:
        answer = results.decode(prediction["result"], size, self._taxonomy, f"prediction {prediction['id']}")
        return Suggestion(str(prediction["model_version"]), answer.lesions, int(prediction["id"]))


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Returns once the condition holds; raises TimeoutError naming `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not seen within {seconds:.0f} s. Look into the logs of the local stack.")
        time.sleep(0.5)


def _plain(prediction: Any) -> dict[str, Any]:
    return prediction if isinstance(prediction, dict) else dict(prediction)


def _finding_label(finding: Finding) -> str:
    return controls.FINDING_LABELS[finding.value]
