"""People who work in a real Label Studio for as long as asked, while programs are killed under them."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
from builders_review import a_lesion, a_result
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from PIL import Image

from converters.annotation import ImageRecord
from converters.geometry import ImageSize
from converters.label_studio.controls import TaskField, Tier
from dermloop.stack import LABEL_STUDIO, REVIEW, Login, Stack, free_ports
from dermloop.stack.install import environment_folder
from review_workflow.label_studio_actions import install_actions
from review_workflow.people import Person, Role
from review_workflow.service import ReviewService

SIZE = ImageSize(200, 100)
DIAGNOSES = ("nv", "mel", "bkl")
_UNANSWERED = {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0}
_QUEUE = json.dumps({"filters": {"conjunction": "and", "items": [_UNANSWERED]}})


@contextmanager
def running_stack(home: Path) -> Iterator[Stack]:
    """Label Studio with the bulk actions, and the review service."""
    stack = Stack.open(home, free_ports())
    install_actions(environment_folder())
    stack.start((LABEL_STUDIO, REVIEW))
    try:
        yield stack
    finally:
        stack.stop()


@contextmanager
def set_up_service(stack: Stack) -> Iterator[ReviewService]:
    """The review of a stack, with everybody known and the projects made."""
    service = stack.open_review()
    for login in stack.people:
        service.put_person(Person(login.email, login.role, login.user_id))
    service.set_up()
    yield service
    service.close()


def images(folder: Path, first: int, count: int) -> list[ImageRecord]:
    """Plain pictures, each of another colour, in the home folder."""
    records = []
    for number in range(first, first + count):
        buffer = io.BytesIO()
        Image.new("RGB", (SIZE.width, SIZE.height), (200 - number // 100, 100 + number % 100, 90)).save(buffer, "PNG")
        image_id = hashlib.sha256(buffer.getvalue()).hexdigest()
        (folder / f"{image_id}.png").write_bytes(buffer.getvalue())
        uri, name = f"images/{image_id}.png", f"{number}.png"
        records.append(ImageRecord(image_id, uri, SIZE, name, patient_id=f"p{number}", synthetic=True))
    return records


def login_of(stack: Stack, role: Role, number: int = 0) -> Login:
    """One of the people with a role."""
    return [login for login in stack.people if login.role is role][number]


@contextmanager
def signed_in(stack: Stack, login: Login) -> Iterator[LabelStudio]:
    """Label Studio as one person sees it."""
    with httpx.Client(timeout=20) as client:
        yield LabelStudio(base_url=stack.label_studio_url, api_key=login.token, httpx_client=client)


def diagnosis_of(image_id: str) -> str:
    """What an image is in truth, as everybody but the second reader sees it."""
    return DIAGNOSES[int(image_id[:4], 16) % len(DIAGNOSES)]


def as_technician(key: str) -> bytes:
    """The technician's answer: always right."""
    return a_result([a_lesion(diagnosis_of(key))])


def as_dermatologist(key: str) -> bytes:
    """A dermatologist's answer: the first slot sends every third image back once, the second calls all of them nevi."""
    image_id, _, number, slot = key.split(":")
    if number == "1" and slot == "1" and int(image_id[4:6], 16) % 3 == 0:
        return a_result([], "Send back", "Tighter, please.")
    return a_result([a_lesion("nv" if slot == "2" else diagnosis_of(key))], "Accept")


def as_qa(key: str) -> bytes:
    """The answer of QA: always right."""
    return a_result([a_lesion(diagnosis_of(key))], "Approve")


@dataclass
class Player:
    """One person who answers every task that is theirs, for as long as asked."""

    stack: Stack
    login: Login
    project: int
    answer: Callable[[str], bytes]
    stop: threading.Event
    done: list[int] = field(default_factory=list)

    def play(self) -> None:
        """Answers what waits, over and over; Label Studio may go away meanwhile."""
        with signed_in(self.stack, self.login) as client:
            while not self.stop.is_set():
                try:
                    self._round(client)
                except (ApiError, httpx.HTTPError):
                    time.sleep(0.5)
                time.sleep(0.5)

    def _round(self, client: LabelStudio) -> None:
        for task in client.tasks.list(project=self.project, query=_QUEUE, fields="task_only", include="id,data"):
            mine = task.data[TaskField.ASSIGNEE] in ("", self.login.email)
            if mine and task.id not in self.done and not self.stop.is_set():
                result = orjson.loads(self.answer(task.data[TaskField.KEY]))
                client.annotations.create(task.id, result=result, lead_time=1.0)
                self.done.append(task.id)


@contextmanager
def people_at_work(stack: Stack, service: ReviewService) -> Iterator[None]:
    """A technician, two dermatologists and QA, all at once."""
    stop = threading.Event()
    parts: list[tuple[Login, Tier, Callable[[str], bytes]]] = [
        (login_of(stack, Role.TECHNICIAN), Tier.TECHNICIAN, as_technician),
        (login_of(stack, Role.DERMATOLOGIST, 0), Tier.DERMATOLOGIST, as_dermatologist),
        (login_of(stack, Role.DERMATOLOGIST, 1), Tier.DERMATOLOGIST, as_dermatologist),
        (login_of(stack, Role.QA), Tier.QA, as_qa),
    ]
    players = [Player(stack, login, service.project(tier), answer, stop) for login, tier, answer in parts]
    threads = [threading.Thread(target=player.play, daemon=True) for player in players]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def until(condition: Callable[[], bool], seconds: float, instead: Callable[[], str]) -> None:
    """Waits for a condition; fails with what is there instead."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not seen within {seconds:.0f} s, but {instead()}"
        time.sleep(0.5)


def kill_all_the_way(stack: Stack, service: ReviewService, progress: list[int], studio_at: set[int]) -> None:
    """Kills the service each time the audit log has reached the next length, Label Studio too at some of them."""
    for number, entries in enumerate(progress):
        until(lambda: service.audit_head().seq >= entries, 1800, lambda: str(service.audit_head().seq))  # noqa: B023
        stack.kill(REVIEW)
        if number in studio_at:
            stack.kill(LABEL_STUDIO)
            stack.restart(LABEL_STUDIO)
        stack.restart(REVIEW)


def assert_nothing_lost_or_doubled(stack: Stack, service: ReviewService, records: list[ImageRecord]) -> None:
    """Every truth is right, every annotation counted once, no task lies there twice, and the audit log verifies."""
    assert service.verify_audit() == ()
    history = service.history()
    disputed = {entry.image_id for entry in history if entry.happened == "disputed"}
    truths = {record.image_id: found[0].lesions[0].diagnosis for record, found in service.approved()}
    assert truths == {record.image_id: diagnosis_of(record.image_id) for record in records}
    assert disputed and any(entry.happened == "sent back" for entry in history)
    tasks = all_tasks(stack, service)
    keys = [task.data[TaskField.KEY] for task in tasks]
    assert len(keys) == len(set(keys))
    # A reopening names the answer that caused it, which is then entered for itself.
    entered = [entry.source for entry in history if entry.source and entry.happened != "reopened"]
    taken = Counter(int(source.split("@")[0]) for source in entered)
    submitted = {int(_id(annotation)) for task in tasks for annotation in task.annotations or ()}
    assert set(taken) == submitted and set(taken.values()) == {1}
    service.sync(full=True, patience=1200)
    assert len(service.history()) == len(history)


def all_tasks(stack: Stack, service: ReviewService) -> list[Any]:
    """The tasks of all three projects with their annotations."""
    with signed_in(stack, stack.admin) as admin:
        return [t for tier in Tier for t in admin.tasks.list(project=service.project(tier), fields="all")]


def _id(annotation: Any) -> int:
    found = annotation["id"] if isinstance(annotation, dict) else annotation.id
    return int(found)
