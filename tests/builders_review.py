"""Builders for the review: people, images, answers, and a Label Studio that lives in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson

from converters import taxonomy as taxonomies
from converters.annotation import Annotation, Finding, ImageRecord, Lesion
from converters.geometry import ImageSize, PixelBox, RleMask
from converters.label_studio import controls, results
from converters.label_studio.controls import TaskField, Tier, Verdict
from review_workflow.decisions import Setting
from review_workflow.label_studio import ModelSuggestion, SubmittedAnnotation, TaskSnapshot
from review_workflow.people import Person, Role, Roster
from review_workflow.policy import Policy, QualityAssurance, Readers
from review_workflow.presentation import Resumed, TaskDraft
from review_workflow.project_setup import SetupOptions
from review_workflow.review import Review, Submit, WorkKey
from review_workflow.service import ReviewService
from review_workflow.store import Session, Store, open_store
from review_workflow.sync import project_fact

TAXONOMY = taxonomies.read()
SIZE = ImageSize(200, 100)
TECHNICIAN = Person("tech@example.org", Role.TECHNICIAN, 1)
SECOND_TECHNICIAN = Person("tech2@example.org", Role.TECHNICIAN, 2)
ANNA = Person("anna@example.org", Role.DERMATOLOGIST, 3)
BEN = Person("ben@example.org", Role.DERMATOLOGIST, 4)
QA = Person("qa@example.org", Role.QA, 5)
CLARA = Person("clara@example.org", Role.DERMATOLOGIST, 7)
ENGINEER = Person("engineer@example.org", Role.ML_ENGINEER, 6)
EVERYBODY = (TECHNICIAN, SECOND_TECHNICIAN, ANNA, BEN, QA, ENGINEER)
STRANGER = 99
NO_SECOND_READER = Policy(
    readers=Readers(share_with_second=0.0, second_for_malignant=False),
    qa=QualityAssurance(share_of_agreed=0.0),
)
TWO_READERS = replace(NO_SECOND_READER, readers=Readers(share_with_second=1.0))
PROJECTS = {Tier.TECHNICIAN: 11, Tier.DERMATOLOGIST: 12, Tier.QA: 13}


def a_setting(policy: Policy = NO_SECOND_READER, people: Sequence[Person] = EVERYBODY) -> Setting:
    return Setting(policy, TAXONOMY, Roster(tuple(people)))


def a_lesion(diagnosis: str = "nv", left: float = 10.0) -> Lesion:
    return Lesion(PixelBox(left, 10.0, left + 50.0, 60.0), diagnosis, TAXONOMY.resolve(diagnosis).severity.value)


def painted(lesion: Lesion) -> Lesion:
    """The lesion with its box painted all over but for its corners."""
    mask = np.zeros((SIZE.height, SIZE.width), dtype=bool)
    box = lesion.box
    mask[int(box.y_min) : int(box.y_max), int(box.x_min) + 5 : int(box.x_max) - 5] = True
    mask[int(box.y_min) + 5 : int(box.y_max) - 5, int(box.x_min) : int(box.x_max)] = True
    return replace(lesion, shape=RleMask.from_array(mask))


def an_image(number: int = 0, patient: str | None = None) -> ImageRecord:
    image_id = f"{number:064x}"
    return ImageRecord(image_id, f"images/{image_id}.jpg", SIZE, f"{number}.jpg", patient or f"patient-{number}")


def a_submission(
    key: WorkKey,
    person: Person | None,
    lesions: Iterable[Lesion] = (a_lesion(),),
    verdict: Verdict | None = None,
    reason: str = "",
    finding: Finding = Finding.LESIONS,
    source: str | None = None,
) -> Submit:
    author = person.email if person else "user 99"
    annotation = Annotation(key.image_id, finding, tuple(lesions), author=author)
    made = source or f"{key}/{author}/{verdict}/{reason}/{orjson.dumps([str(x) for x in annotation.lesions])!r}"
    return Submit(key, person, annotation, verdict, reason, made)


def a_result(
    lesions: Sequence[Lesion] = (a_lesion(),), verdict: str | None = None, reason: str = "", finding: str | None = None
) -> bytes:
    rows = results.encode(lesions, SIZE, TAXONOMY, masks=True)
    if finding:
        rows.append(results.encode_choice(controls.FINDING, controls.FINDING_LABELS[finding]))
    if verdict:
        rows.append(results.encode_choice(controls.VERDICT, verdict))
    if reason:
        rows.append(results.encode_text(controls.REASON, reason))
    return orjson.dumps(rows, option=orjson.OPT_SORT_KEYS)


def current_key(review: Review, tier: Tier, slot: int = 1) -> WorkKey:
    return next(work.key for work in review.current(tier) if work.key.slot == slot)


@dataclass
class MemoryTask:
    task_id: int
    project_id: int
    draft: TaskDraft
    updated_at: datetime
    annotations: dict[int, SubmittedAnnotation]
    prediction: tuple[str, bytes] | None = None

    @property
    def data(self) -> dict[str, str | float]:
        return dict(self.draft.columns)


class MemoryLabelStudio:
    """Tasks and annotations kept in memory; `away` refuses every call, `crash_after_create` dies with the work done."""

    def __init__(self) -> None:
        self.all_tasks: dict[int, MemoryTask] = {}
        self.away: Exception | None = None
        self.crash_after_create: BaseException | None = None
        self.preloaded: dict[int, str] = {}
        self.offset = 0.0
        self.desks: dict[tuple[int, str], Annotation] = {}
        self._ids = itertools.count(1)
        self._ticks = itertools.count(1)

    def now(self) -> datetime:
        return datetime.fromtimestamp(1_700_000_000 + self.offset + next(self._ticks), UTC)

    def create_tasks(self, project_id: int, drafts: Sequence[tuple[TaskDraft, ImageSize]]) -> tuple[int, ...]:
        self._answer()
        made = []
        for draft, _ in drafts:
            task_id = next(self._ids)
            self.all_tasks[task_id] = MemoryTask(task_id, project_id, draft, self.now(), {})
            made.append(task_id)
        if self.crash_after_create is not None:
            crash, self.crash_after_create = self.crash_after_create, None
            raise crash
        return tuple(made)

    def put_on_desk(self, project_id: int, task_id: int, resumed: Resumed, size: ImageSize) -> bool:
        self._answer()
        self.desks.setdefault((task_id, resumed.reader), resumed.annotation)
        return True

    def preload(self, project_id: int, version: str) -> None:
        self._answer()
        self.preloaded[project_id] = version

    def find_task(self, project_id: int, key: str) -> int | None:
        self._answer()
        found = [t for t in self.all_tasks.values() if t.project_id == project_id and t.data[TaskField.KEY] == key]
        return min((task.task_id for task in found), default=None)

    def update_task(self, task_id: int, draft: TaskDraft) -> bool:
        self._answer()
        if task_id not in self.all_tasks:
            return False
        self.all_tasks[task_id].draft = replace(self.all_tasks[task_id].draft, columns=draft.columns)
        self.all_tasks[task_id].updated_at = self.now()
        return True

    def delete_task(self, task_id: int) -> bool:
        self._answer()
        return self.all_tasks.pop(task_id, None) is not None

    def task(self, task_id: int) -> TaskSnapshot | None:
        self._answer()
        task = self.all_tasks.get(task_id)
        return _snapshot(task) if task else None

    def tasks(self, project_id: int, task_ids: Sequence[int]) -> Iterator[TaskSnapshot]:
        self._answer()
        wanted = [self.all_tasks[i] for i in sorted(task_ids) if i in self.all_tasks]
        yield from [_snapshot(task) for task in wanted if task.project_id == project_id]

    def task_keys(self, project_id: int) -> dict[int, str]:
        self._answer()
        found = [task for task in self.all_tasks.values() if task.project_id == project_id]
        return {task.task_id: str(task.data[TaskField.KEY]) for task in found}

    def changed(self, project_id: int, since: datetime | None) -> Iterator[TaskSnapshot]:
        self._answer()
        tasks = [t for t in self.all_tasks.values() if t.project_id == project_id and t.annotations]
        yield from [_snapshot(t) for t in sorted(tasks, key=lambda t: t.task_id) if not since or t.updated_at >= since]

    def suggestions(self, project_id: int, since: datetime | None, after: int = 0) -> Iterator[ModelSuggestion]:
        self._answer()
        for task in sorted(self.all_tasks.values(), key=lambda task: task.task_id):
            recent = task.task_id > after and (not since or task.updated_at >= since)
            if recent and task.project_id == project_id and not task.annotations and task.prediction is not None:
                version, result = task.prediction
                key = str(task.data[TaskField.KEY])
                yield ModelSuggestion(task.task_id, key, version, task.updated_at, result)

    def predict(self, task_id: int, version: str, result: bytes) -> None:
        self.all_tasks[task_id].prediction = (version, result)
        self.all_tasks[task_id].updated_at = self.now()

    def users(self) -> dict[int, str]:
        self._answer()
        return {person.user_id: person.email for person in EVERYBODY if person.user_id is not None}

    def annotate(
        self,
        task_id: int,
        user_id: int,
        result: bytes,
        cancelled: bool = False,
        lead_time: float = 4.0,
        started_from: str | None = None,
    ) -> int:
        number = next(self._ids)
        moment = self.now()
        made = SubmittedAnnotation(number, user_id, user_id, moment, moment, lead_time, cancelled, result, started_from)
        self.all_tasks[task_id].annotations[number] = made
        self.all_tasks[task_id].updated_at = moment
        return number

    def edit(self, annotation_id: int, user_id: int, result: bytes) -> None:
        task = next(t for t in self.all_tasks.values() if annotation_id in t.annotations)
        known, moment = task.annotations[annotation_id], self.now()
        task.annotations[annotation_id] = replace(known, updated_by=user_id, updated_at=moment, result=result)
        task.updated_at = moment

    def open_tasks(self, tier: Tier, person: Person | None = None) -> list[MemoryTask]:
        found = [t for t in self.all_tasks.values() if t.project_id == PROJECTS[tier] and not t.annotations]
        return [t for t in found if person is None or t.data[TaskField.ASSIGNEE] in ("", person.email)]

    def _answer(self) -> None:
        if self.away is not None:
            raise self.away


class Crash(BaseException):
    """The process is gone, here and now."""


class FragileStore(Store):
    """A database whose process dies at a chosen step: before a transaction, inside it, or right after its commit."""

    countdown: int | None = None

    @contextmanager
    def writing(self) -> Iterator[Session]:
        self._step()
        with super().writing() as session:
            yield session
            self._step()
        self._step()

    def _step(self) -> None:
        if self.countdown is not None:
            self.countdown -= 1
            if self.countdown < 0:
                self.countdown = None
                raise Crash


class Ticking:
    """A clock that moves a second on with every look, and can be set."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def a_store(folder: Path, people: Sequence[Person] = EVERYBODY) -> Store:
    store = open_store(f"sqlite:///{folder / 'review.db'}")
    prepare(store, people)
    return store


def prepare(store: Store, people: Sequence[Person] = EVERYBODY) -> None:
    with store.writing() as session:
        for person in people:
            session.put_person(person)
        for tier, project_id in PROJECTS.items():
            session.put_fact(project_fact(tier), str(project_id))


def a_service(
    store: Store,
    studio: MemoryLabelStudio,
    policy: Policy = NO_SECOND_READER,
    clock: Ticking | None = None,
    images: Path | None = None,
) -> ReviewService:
    return ReviewService(store, studio, policy, TAXONOMY, SetupOptions(), clock or Ticking(), images)


def _snapshot(task: MemoryTask) -> TaskSnapshot:
    key = str(task.data[TaskField.KEY])
    return TaskSnapshot(task.task_id, task.project_id, key, task.updated_at, tuple(task.annotations.values()))
