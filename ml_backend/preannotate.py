"""Pushes the champion's predictions to a whole project: in chunks, with progress, skipping what is current."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from converters.label_studio.controls import TaskField
from converters.taxonomy import Taxonomy
from ml_backend import predictions
from ml_backend.fetch import ImageSource
from ml_backend.label_config import LabelConfig, read_config
from ml_backend.label_studio import NewPrediction, StoredTask
from ml_backend.service import Analysis, Outcome, Picture, PredictionService

DEFAULT_CHUNK = 50
Progress = Callable[[int, int], None]
LinkFor = Callable[[str], str | None]


def _no_link(_address: str) -> str | None:
    return None


class ProjectClient(Protocol):
    """What pre-annotation needs of Label Studio."""

    def label_config(self, project_id: int) -> str:
        """The labelling config of a project."""
        ...

    def tasks(self, project_id: int) -> Iterator[StoredTask]:
        """The tasks of a project."""
        ...

    def push(self, project_id: int, predictions: Sequence[NewPrediction]) -> int:
        """Stores predictions and tells how many."""
        ...

    def show_version(self, project_id: int, version: str) -> None:
        """Makes the project show the predictions of one version."""
        ...


@dataclass(frozen=True, slots=True)
class PreannotationReport:
    """What was done: tasks predicted, tasks that were current, and (task, reason) for each that failed.

    `left_alone` counts tasks that a person has answered already, that came back with their reader's own boxes, or that
    are to be read blind.
    """

    model_version: str
    predicted: int = 0
    current: int = 0
    left_alone: int = 0
    failed: tuple[tuple[int, str], ...] = field(default=())


def preannotate(
    client: ProjectClient,
    project_id: int,
    service: PredictionService,
    source: ImageSource,
    progress: Progress | None = None,
    chunk_size: int = DEFAULT_CHUNK,
    link_for: LinkFor = _no_link,
) -> PreannotationReport:
    """The report after every waiting task of the project carries a prediction of the champion, or a reason why not.

    `link_for` gives the link to a picture's heat-map by the picture's address; regions carry it where tasks do not.
    Run again after an interruption it goes on where it stopped, since stored chunks are current. The whole run uses
    the champion of its start. Raises LabelStudioError where Label Studio refuses, NoModelError before the first
    promotion.
    """
    pipeline = service.host.current()
    version = pipeline.bundle.version
    config = read_config(client.label_config(project_id), pipeline.bundle.taxonomy)
    tasks = list(client.tasks(project_id))
    waiting = [task for task in tasks if not _in_hand(task)]
    due = [task for task in waiting if version not in task.model_versions]
    report = PreannotationReport(version, current=len(waiting) - len(due), left_alone=len(tasks) - len(waiting))
    for start in range(0, len(due), chunk_size):
        chunk = due[start : start + chunk_size]
        pictures = [Picture(task.item, functools.partial(source.fetch_of, task, config.field)) for task in chunk]
        new, failed = _predicted(chunk, service.analyse(pictures, pipeline=pipeline), config, link_for)
        if new:
            client.push(project_id, new)
        report = replace(report, predicted=report.predicted + len(new), failed=(*report.failed, *failed))
        if progress is not None:
            progress(min(start + chunk_size, len(due)), len(due))
    client.show_version(project_id, version)
    return report


def _in_hand(task: StoredTask) -> bool:
    return task.answered or bool(task.get(TaskField.REASON)) or bool(task.get(TaskField.BLIND))


def _predicted(
    chunk: Sequence[StoredTask], analysis: Analysis, config: LabelConfig, link_for: LinkFor
) -> tuple[list[NewPrediction], list[tuple[int, str]]]:
    known, pairs = analysis.bundle.taxonomy, list(zip(chunk, analysis.outcomes, strict=True))
    new = [made for task, outcome in pairs if (made := _prediction(task, outcome, known, config, link_for)) is not None]
    return new, [(task.id, str(outcome.error)) for task, outcome in pairs if outcome.error is not None]


def _prediction(
    task: StoredTask, outcome: Outcome, taxonomy: Taxonomy, config: LabelConfig, link_for: LinkFor
) -> NewPrediction | None:
    if outcome.prediction is None:
        return None
    link = None if task.get(TaskField.HEATMAP) else link_for(task.get(config.field) or "")
    row = predictions.entry(outcome.prediction, taxonomy, config, link)
    return NewPrediction(task.id, tuple(row["result"]), row["score"], row["model_version"])
