"""What the review needs of a Label Studio, in the house's own words; `gateway.py` is the real one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from converters.geometry import ImageSize
from review_workflow.presentation import Resumed, TaskDraft


@dataclass(frozen=True, slots=True)
class SubmittedAnnotation:
    """An annotation as Label Studio holds it; `result` is its canonical JSON, people are Label Studio's user ids.

    `started_from` is the model version of the prediction that the reader began with, where Label Studio noted one.
    """

    annotation_id: int
    completed_by: int | None
    updated_by: int | None
    created_at: datetime | None
    updated_at: datetime | None
    lead_time: float | None
    cancelled: bool
    result: bytes
    started_from: str | None = None

    @property
    def actor(self) -> int | None:
        """Who said what it says now: the last editor."""
        return self.updated_by or self.completed_by


@dataclass(frozen=True, slots=True)
class TaskSnapshot:
    """A task with all its annotations at one moment; `key` is empty for a task that we did not make."""

    task_id: int
    project_id: int
    key: str
    updated_at: datetime | None
    annotations: tuple[SubmittedAnnotation, ...]


@dataclass(frozen=True, slots=True)
class ModelSuggestion:
    """A model's newest prediction on a task that nobody has answered; `result` is its canonical JSON."""

    task_id: int
    key: str
    model_version: str
    updated_at: datetime | None
    result: bytes


class LabelStudioTasks(Protocol):
    """The tasks of one Label Studio; every call raises LabelStudioError where it is away or refuses."""

    def create_tasks(self, project_id: int, drafts: Sequence[tuple[TaskDraft, ImageSize]]) -> tuple[int, ...]:
        """The ids of new tasks, in the order of the drafts."""

    def preload(self, project_id: int, version: str) -> None:
        """Makes the label stream start from predictions of this version."""

    def find_task(self, project_id: int, key: str) -> int | None:
        """The id of the task with a key, the oldest where there are several, or None."""

    def put_on_desk(self, project_id: int, task_id: int, resumed: Resumed, size: ImageSize) -> bool:
        """Whether the reader finds a draft there, of their earlier boxes or what they made of them."""

    def update_task(self, task_id: int, draft: TaskDraft) -> bool:
        """Whether the task was there to be rewritten."""

    def delete_task(self, task_id: int) -> bool:
        """Whether the task was there to be deleted."""

    def task(self, task_id: int) -> TaskSnapshot | None:
        """The task with its annotations, or None where it is gone."""

    def tasks(self, project_id: int, task_ids: Sequence[int]) -> Iterator[TaskSnapshot]:
        """The tasks with these ids that still exist, with their annotations."""

    def task_keys(self, project_id: int) -> dict[int, str]:
        """The keys of all tasks of a project by id (ids are used again once their task is gone)."""

    def changed(self, project_id: int, since: datetime | None) -> Iterator[TaskSnapshot]:
        """Every task with an annotation that changed at or after a moment; all of those where the moment is None."""

    def suggestions(self, project_id: int, since: datetime | None, after: int = 0) -> Iterator[ModelSuggestion]:
        """The newest prediction of each unanswered task that changed at or after a moment, by task, beyond an id."""

    def users(self) -> dict[int, str]:
        """E-mail addresses by user id."""
