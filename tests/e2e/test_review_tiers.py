"""The review on a real Label Studio: three people at once, while the service and Label Studio are killed under them."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import requests
from builders_review import TAXONOMY, a_lesion, a_result
from label_studio_page import LabelStudioPage, chromium
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from PIL import Image

from converters.annotation import ImageRecord
from converters.geometry import ImageSize
from converters.label_studio.config import SEVERITY_COLOURS, labelling_config
from converters.label_studio.controls import TaskField, Tier
from converters.taxonomy import Severity
from dermloop.stack import LABEL_STUDIO, REVIEW, Login, Stack, free_ports
from dermloop.stack.install import environment_folder
from review_workflow.label_studio_actions import install_actions
from review_workflow.people import Person, Role
from review_workflow.service import ReviewService

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
IMAGES = 16
_UNANSWERED = {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0}
_QUEUE = json.dumps({"filters": {"conjunction": "and", "items": [_UNANSWERED]}})
SIZE = ImageSize(200, 100)
DIAGNOSES = ("nv", "mel", "bkl")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack.open(tmp_path_factory.mktemp("home"), free_ports())
    install_actions(environment_folder())
    stack.start((LABEL_STUDIO, REVIEW))
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def service(stack: Stack) -> Iterator[ReviewService]:
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
        Image.new("RGB", (SIZE.width, SIZE.height), (200, 100 + number, 90)).save(buffer, "PNG")
        image_id = hashlib.sha256(buffer.getvalue()).hexdigest()
        (folder / f"{image_id}.png").write_bytes(buffer.getvalue())
        uri, name = f"images/{image_id}.png", f"{number}.png"
        records.append(ImageRecord(image_id, uri, SIZE, name, patient_id=f"p{number}", synthetic=True))
    return records


def login_of(stack: Stack, role: Role, number: int = 0) -> Login:
    return [login for login in stack.people if login.role is role][number]


@contextmanager
def signed_in(stack: Stack, login: Login) -> Iterator[LabelStudio]:
    """Label Studio as one person sees it."""
    with httpx.Client(timeout=20) as client:
        yield LabelStudio(base_url=stack.label_studio_url, api_key=login.token, httpx_client=client)


@dataclass
class Player:
    """One person who answers every task that is theirs, for as long as asked."""

    stack: Stack
    login: Login
    project: int
    answer: Callable[[str, dict[str, object]], bytes]
    stop: threading.Event
    done: list[int] = field(default_factory=list)

    def play(self) -> None:
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
                result = orjson.loads(self.answer(task.data[TaskField.KEY], task.data))
                client.annotations.create(task.id, result=result, lead_time=1.0)
                self.done.append(task.id)


def diagnosis_of(image_id: str) -> str:
    return DIAGNOSES[int(image_id[:4], 16) % len(DIAGNOSES)]


def as_technician(key: str, data: dict[str, object]) -> bytes:
    return a_result([a_lesion(diagnosis_of(key))])


def as_dermatologist(key: str, data: dict[str, object]) -> bytes:
    image_id, _, number, slot = key.split(":")
    if number == "1" and slot == "1" and int(image_id[4:6], 16) % 3 == 0:
        return a_result([], "Send back", "Tighter, please.")
    return a_result([a_lesion("nv" if slot == "2" else diagnosis_of(key))], "Accept")


def as_qa(key: str, data: dict[str, object]) -> bytes:
    return a_result([a_lesion(diagnosis_of(key))], "Approve")


def until(condition: Callable[[], bool], seconds: float, instead: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not seen within {seconds:.0f} s, but {instead()}"
        time.sleep(0.5)


def kill_and_restart(stack: Stack) -> None:
    """Four times the review service, once Label Studio, each as `kill -9` does."""
    for number in range(4):
        time.sleep(1.5)
        stack.kill(REVIEW)
        if number == 1:
            stack.kill(LABEL_STUDIO)
            stack.restart(LABEL_STUDIO)
        stack.restart(REVIEW)


def test_three_people_finish_while_everything_is_killed_under_them(stack: Stack, service: ReviewService) -> None:
    records = images(stack.home.images, 0, IMAGES)
    assert service.register(records) == IMAGES
    stop = threading.Event()
    parts = [
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
        kill_and_restart(stack)
        until(lambda: dict(service.states()) == {"approved": IMAGES}, 300, lambda: str(service.status()))
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert service.verify_audit() == ()
    truths = {record.image_id: found[0].lesions[0].diagnosis for record, found in service.approved()}
    disputed = {e.image_id for e in service.history() if e.happened == "disputed"}
    assert {i: d for i, d in truths.items() if i not in disputed} == {
        r.image_id: diagnosis_of(r.image_id) for r in records if r.image_id not in disputed
    }
    assert disputed and all(truths[image_id] == diagnosis_of(image_id) for image_id in disputed)
    assert any(entry.happened == "sent back" for entry in service.history())
    assert no_task_twice(stack, service)
    before = len(service.history())
    service.sync(full=True)
    assert len(service.history()) == before


def no_task_twice(stack: Stack, service: ReviewService) -> bool:
    with signed_in(stack, stack.admin) as admin:
        keys = [t.data[TaskField.KEY] for tier in Tier for t in admin.tasks.list(project=service.project(tier))]
    return len(keys) == len(set(keys))


def test_bulk_verdicts_carry_the_user_and_keep_to_their_own_tasks(stack: Stack, service: ReviewService) -> None:
    (record,) = images(stack.home.images, 100, 1)
    service.register([record])
    service.settle()
    technician = login_of(stack, Role.TECHNICIAN)
    with signed_in(stack, technician) as client:
        (task,) = open_tasks(client, service.project(Tier.TECHNICIAN), record)
        client.annotations.create(task.id, result=orjson.loads(a_result([a_lesion("mel")])), lead_time=1.0)
    service.settle()
    first, second = (login_of(stack, Role.DERMATOLOGIST, number) for number in (0, 1))
    assert bulk(stack, service, first, "dermloop_accept", record)["detail"] == (
        "1 tasks decided. Left out: 1 assigned to somebody else."
    )
    refused = bulk(stack, service, second, "dermloop_send_back", record)
    assert refused["detail"] == "Give a reason, in one sentence."
    bulk(stack, service, second, "dermloop_send_back", record, reason="Too wide.")
    service.settle()
    review = service.review(record.image_id)
    assert review.state == "sent back"
    assert [(e.actor, e.happened) for e in service.history(record.image_id)][-2:] == [
        (first.email, "read"),
        (second.email, "sent back"),
    ]
    with signed_in(stack, technician) as client:
        (back,) = open_tasks(client, service.project(Tier.TECHNICIAN), record)
    assert "Too wide." in back.data[TaskField.NOTE]


def open_tasks(client: LabelStudio, project: int, record: ImageRecord) -> list[Any]:
    """The unanswered tasks of an image in a project."""
    tasks = client.tasks.list(project=project, fields="all")
    return [task for task in tasks if not task.annotations and task.data[TaskField.IMAGE_ID] == record.image_id]


def bulk(
    stack: Stack, service: ReviewService, who: Login, action: str, record: ImageRecord, **form: str
) -> dict[str, object]:
    project = service.project(Tier.DERMATOLOGIST)
    with signed_in(stack, who) as client:
        tasks = [t.id for t in client.tasks.list(project=project) if t.data[TaskField.IMAGE_ID] == record.image_id]
    answer = requests.post(
        f"{stack.label_studio_url}/api/dm/actions",
        params={"project": project, "id": action},
        headers={"Authorization": f"Token {who.token}"},
        json={
            "selectedItems": {"all": False, "included": tasks},
            "filters": {"conjunction": "and", "items": []},
            "ordering": [],
            **form,
        },
        timeout=30,
    )
    return dict(answer.json())


def test_the_label_stream_goes_on_from_the_technicians_own_boxes(stack: Stack, service: ReviewService) -> None:
    (record,) = images(stack.home.images, 101, 1)
    service.register([record])
    technician, project = login_of(stack, Role.TECHNICIAN), service.project(Tier.TECHNICIAN)
    say(stack, service, technician, Tier.TECHNICIAN, record, a_result([a_lesion("mel")]))
    reader = next(login for login in stack.people if login.email == service.review(record.image_id).works[-1].assignee)
    say(stack, service, reader, Tier.DERMATOLOGIST, record, a_result([], "Send back", "Look again."))
    with signed_in(stack, technician) as client:
        for task in client.tasks.list(project=project, fields="all"):
            if not task.annotations and task.data[TaskField.IMAGE_ID] != record.image_id:
                client.annotations.create(task.id, result=orjson.loads(a_result()), lead_time=1.0)
    with chromium() as browser:
        page = LabelStudioPage(browser, stack.label_studio_url, technician.email, technician.password)
        page.label_all(project)
        page.screenshot("technician-returned-work")
        assert "Look again." in page.text()
        assert page.pixels_of_colour(SEVERITY_COLOURS[Severity.HIGH]) > 200, "the technician's own box is drawn"
        page.submit()
    service.settle()
    first, again = (a for a in service.review(record.image_id).answers if a.key.tier is Tier.TECHNICIAN)
    assert (again.changed, again.annotation.model_version) == (False, None)
    assert again.annotation.lesions[0].box.iou(first.annotation.lesions[0].box) > 0.99


def say(stack: Stack, service: ReviewService, who: Login, tier: Tier, record: ImageRecord, result: bytes) -> None:
    """One person's answer on their open task of an image, taken in."""
    service.settle()
    with signed_in(stack, who) as client:
        tasks = open_tasks(client, service.project(tier), record)
        task = next(task for task in tasks if task.data[TaskField.ASSIGNEE] in ("", who.email))
        client.annotations.create(task.id, result=orjson.loads(result), lead_time=1.0)
    service.settle()


def test_nobody_but_the_service_writes_drafts_of_others(stack: Stack, service: ReviewService) -> None:
    technician, dermatologist = login_of(stack, Role.TECHNICIAN), login_of(stack, Role.DERMATOLOGIST)
    answer = requests.post(
        f"{stack.label_studio_url}/api/dm/actions",
        params={"project": service.project(Tier.TECHNICIAN), "id": "dermloop_put_on_desk"},
        headers={"Authorization": f"Token {dermatologist.token}"},
        json={"selectedItems": {"all": True, "excluded": []}, "reader": technician.email, "result": []},
        timeout=30,
    )
    assert answer.status_code == 403
    shown = requests.get(
        f"{stack.label_studio_url}/api/dm/actions",
        params={"project": service.project(Tier.TECHNICIAN)},
        headers={"Authorization": f"Token {stack.admin.token}"},
        timeout=30,
    )
    assert "dermloop_accept" in shown.text and "dermloop_put_on_desk" not in shown.text


def test_set_up_repairs_a_project_that_somebody_changed(stack: Stack, service: ReviewService) -> None:
    assert service.set_up().changes == ()
    with signed_in(stack, stack.admin) as admin:
        break_and_repair(service, admin)


def break_and_repair(service: ReviewService, admin: LabelStudio) -> None:
    project = service.project(Tier.QA)
    admin.projects.update(project, title="My project", show_skip_button=True)
    (hook,) = admin.webhooks.list(project=str(project))
    admin.webhooks.update(hook.id, is_active=False, url=hook.url, headers=hook.headers)
    changes = service.set_up().changes
    assert changes == (
        "set show_skip_button, title of project dermloop 3 · QA",
        f"repaired the webhook of project {project}",
    )
    assert service.set_up().changes == ()
    assert admin.projects.get(project).label_config == labelling_config(TAXONOMY, Tier.QA)


def test_a_wrong_secret_and_a_malformed_body_are_refused(stack: Stack) -> None:
    address = f"{stack.review_url}/webhook"
    assert requests.post(address, json={}, timeout=10).status_code == 401
    header = {"X-Dermloop-Secret": stack.secrets.webhook}
    answer = requests.post(address, data=b"[1, 2", headers=header, timeout=10)
    assert (answer.status_code, "webhook body" in answer.json()["error"]) == (400, True)
