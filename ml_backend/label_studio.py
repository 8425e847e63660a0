"""The one door to Label Studio's API: files it keeps, tasks of a project, predictions pushed to it.

The SDK is imported on first use: it brings pandas, and a backend that reads local files never needs it.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import requests

from ml_backend.errors import FetchError, LabelStudioError
from telemetry import request_id, tracing

if TYPE_CHECKING:
    import httpx
    from label_studio_sdk import LabelStudio

_PAGE = 100
_TIMEOUT = (3.0, 30.0)
_SDK_SECONDS = 60.0
_JWT_DOTS = 2
_ACCESS_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task as Label Studio keeps it: its number, its data as text, and the versions that have predicted it.

    `answered` is true once somebody has submitted an annotation.
    """

    id: int
    data: tuple[tuple[str, str], ...]
    model_versions: frozenset[str]
    answered: bool = False

    @property
    def item(self) -> str:
        """How the task is called in messages."""
        return f"task {self.id}"

    def get(self, field: str) -> str | None:
        """The value of a data field."""
        return dict(self.data).get(field)


@dataclass(frozen=True, slots=True)
class NewPrediction:
    """One prediction to be stored: Label Studio's own result rows, and its score for ordering."""

    task_id: int
    result: tuple[dict[str, Any], ...]
    score: float
    model_version: str


class LabelStudioClient:
    """Label Studio by its address and a token, legacy (40 hex digits) or personal (exchanged as often as needed)."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/") + "/"
        self._token = token
        self._access = ""
        self._access_until = float("-inf")

    @cached_property
    def _client(self) -> LabelStudio:
        from label_studio_sdk import LabelStudio

        return LabelStudio(base_url=self._url.rstrip("/"), api_key=self._token, httpx_client=self._connections)

    @cached_property
    def _connections(self) -> httpx.Client:
        import httpx

        return httpx.Client(timeout=_SDK_SECONDS, follow_redirects=True, event_hooks={"request": [request_id.stamp]})

    def close(self) -> None:
        """Ends the kept connections."""
        if "_connections" in self.__dict__:
            self._connections.close()

    def fetch(self, path: str, max_bytes: int) -> bytes:
        """The bytes behind a path of Label Studio; raises FetchError where it refuses or is too large."""
        response = self._get(path)
        with response:
            if response.status_code != 200:
                raise FetchError(path, f"status {response.status_code}", "status 200", "Check the token's rights.")
            return _body(response, path, max_bytes)

    def resolved(self, task_id: int, address: str, max_bytes: int) -> bytes | str:
        """An object of a connected storage: its bytes where Label Studio passes them on, else its presigned address.

        Raises FetchError where no storage has it.
        """
        encoded = base64.urlsafe_b64encode(address.encode()).decode()
        with self._get(f"/tasks/{task_id}/presign/?fileuri={encoded}") as response:
            if location := response.headers.get("Location"):
                return str(location)
            if response.status_code == 200:
                return _body(response, address, max_bytes)
        found = f"status {response.status_code} from Label Studio"
        raise FetchError(address.split("?")[0], found, "an object of a connected storage", "Connect the storage.")

    def label_config(self, project_id: int) -> str:
        """The labelling config of a project; raises LabelStudioError where it cannot be read."""
        with _told(f"project {project_id}"):
            return str(self._client.projects.get(id=project_id).label_config or "")

    def tasks(self, project_id: int) -> Iterator[StoredTask]:
        """The tasks of a project by number, read page by page; raises LabelStudioError where that fails."""
        with _told(f"tasks of project {project_id}"):
            for task in self._client.tasks.list(project=project_id, fields="all", page_size=_PAGE):
                yield _task(task.model_dump())

    def push(self, project_id: int, predictions: Sequence[NewPrediction]) -> int:
        """The number of predictions stored, in one request; raises LabelStudioError where Label Studio refuses."""
        from label_studio_sdk import PredictionRequest

        rows = [
            PredictionRequest(task=p.task_id, result=list(p.result), score=p.score, model_version=p.model_version)
            for p in predictions
        ]
        with _told(f"predictions of project {project_id}"):
            return int(self._client.projects.import_predictions(id=project_id, request=rows).created or 0)

    def show_version(self, project_id: int, version: str) -> None:
        """Makes a project show the predictions of one version."""
        with _told(f"project {project_id}"):
            self._client.projects.update(id=project_id, model_version=version)

    def _get(self, path: str) -> requests.Response:
        address = urljoin(self._url, path.lstrip("/"))
        try:
            headers = {"Authorization": self._authorization(), **request_id.outgoing()}
            with tracing.span("Label Studio: read a file"):
                return requests.get(address, headers=headers, timeout=_TIMEOUT, stream=True, allow_redirects=False)
        except (requests.RequestException, LabelStudioError) as error:
            found = type(error).__name__
            raise FetchError(path.split("?")[0], found, "an answer from Label Studio", "Start it.") from error

    def _authorization(self) -> str:
        if self._token.count(".") != _JWT_DOTS:
            return f"Token {self._token}"
        if time.monotonic() > self._access_until:
            address = urljoin(self._url, "api/token/refresh")
            answer = requests.post(address, json={"refresh": self._token}, timeout=_TIMEOUT)
            if answer.status_code != 200:
                found = f"status {answer.status_code}"
                raise LabelStudioError("personal access token", found, "an accepted token", "Create a new one.")
            self._access, self._access_until = str(answer.json()["access"]), time.monotonic() + _ACCESS_SECONDS
        return f"Bearer {self._access}"


def _body(response: requests.Response, item: str, max_bytes: int) -> bytes:
    content = response.raw.read(max_bytes + 1, decode_content=True)
    if len(content) > max_bytes:
        raise FetchError(item, "more bytes", f"at most {max_bytes}", "Scale the image down.")
    return bytes(content)


def _task(row: dict[str, Any]) -> StoredTask:
    data = tuple((str(k), v) for k, v in (row.get("data") or {}).items() if isinstance(v, str))
    versions = {_version(prediction) for prediction in row.get("predictions") or []}
    answered = bool(row.get("annotations") or row.get("total_annotations"))
    return StoredTask(int(row["id"]), data, frozenset(version for version in versions if version), answered)


def _version(prediction: Any) -> str | None:
    found = prediction.get("model_version") if isinstance(prediction, dict) else None
    return str(found) if found else None


@contextmanager
def _told(item: str) -> Iterator[None]:
    """Turns what the SDK raises into one LabelStudioError that names the item."""
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    try:
        with tracing.span(f"Label Studio: {item}"):
            yield
    except (ApiError, httpx.HTTPError, OSError) as error:
        found = f"status {error.status_code}" if isinstance(error, ApiError) else type(error).__name__
        raise LabelStudioError(item, found, "Label Studio to accept it", "Check address, token, project.") from error
