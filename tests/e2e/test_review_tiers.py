"""The review on a real Label Studio: three people at once, while the service and Label Studio are killed under them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
import requests
from builders_review import TAXONOMY, a_lesion, a_result
from label_studio_page import LabelStudioPage, chromium
from label_studio_sdk import LabelStudio
from playwright.sync_api import Browser
from review_players import (
    assert_nothing_lost_or_doubled,
    images,
    kill_all_the_way,
    login_of,
    people_at_work,
    running_stack,
    set_up_service,
    signed_in,
    until,
)

from converters.annotation import ImageRecord, TruthLevel
from converters.geometry import RleMask
from converters.label_studio.config import SEVERITY_COLOURS, labelling_config
from converters.label_studio.controls import TaskField, Tier
from converters.taxonomy import Severity
from dermloop.stack import REVIEW, Login, Stack
from review_workflow.consensus import merge_masks
from review_workflow.errors import LabelStudioError
from review_workflow.measures import dice
from review_workflow.people import Role
from review_workflow.service import ReviewService

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
IMAGES = 16
PAINTING = """
format = 1
[readers]
share_with_second = 1.0
masks = true
[qa]
share_of_agreed = 1.0
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("home")) as stack:
        yield stack


@pytest.fixture(scope="module")
def service(stack: Stack) -> Iterator[ReviewService]:
    with set_up_service(stack) as service:
        yield service


def test_three_people_finish_while_everything_is_killed_under_them(stack: Stack, service: ReviewService) -> None:
    records = images(stack.home.images, 0, IMAGES)
    before = service.audit_head().seq
    assert service.register(records) == IMAGES
    with people_at_work(stack, service):
        kill_all_the_way(stack, service, [before + IMAGES + n for n in (5, 15, 25, 35)], studio_at={1})
        until(lambda: dict(service.states()) == {"approved": IMAGES}, 300, lambda: str(service.status()))
    assert_nothing_lost_or_doubled(stack, service, records)


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
    tab = next(view for view in admin.views.list(project=project) if view.data["title"] == "Disputed")
    kept = [item for item in tab.data["filters"]["items"] if "state" not in item["filter"]]
    mine = {**tab.data, "filters": {**tab.data["filters"], "items": kept}, "ordering": ["tasks:id"]}
    admin.views.update(str(tab.id), project=project, data=mine)
    changes = service.set_up().changes
    assert changes == (
        "set show_skip_button, title of project dermloop 3 · QA",
        f"repaired the webhook of project {project}",
        f"repaired tab Disputed in project {project}",
    )
    assert service.set_up().changes == ()
    assert admin.projects.get(project).label_config == labelling_config(TAXONOMY, Tier.QA)


def test_a_project_deleted_in_label_studio_is_a_clear_word_and_set_up_makes_it_again(
    stack: Stack, service: ReviewService
) -> None:
    (record,) = images(stack.home.images, 102, 1)
    service.register([record])
    say(stack, service, login_of(stack, Role.TECHNICIAN), Tier.TECHNICIAN, record, a_result())
    lost, before = service.project(Tier.DERMATOLOGIST), service.review(record.image_id)
    with signed_in(stack, stack.admin) as admin:
        admin.projects.delete(lost)
    with pytest.raises(LabelStudioError, match="review setup"):
        service.sync(full=True)
    assert "created project dermloop 2 · dermatologist" in service.set_up().changes
    service.settle()
    assert service.project(Tier.DERMATOLOGIST) != lost
    assert replace(service.review(record.image_id), version=0) == replace(before, version=0)
    reader = next(login for login in stack.people if login.email == before.works[-1].assignee)
    say(stack, service, reader, Tier.DERMATOLOGIST, record, a_result(verdict="Accept"))
    assert service.review(record.image_id).readings(Tier.DERMATOLOGIST)
    assert service.verify_audit() == ()


def test_a_task_deleted_in_label_studio_comes_back(stack: Stack, service: ReviewService) -> None:
    (record,) = images(stack.home.images, 103, 1)
    service.register([record])
    service.settle()
    with signed_in(stack, stack.admin) as admin:
        (task,) = open_tasks(admin, service.project(Tier.TECHNICIAN), record)
        admin.tasks.delete(str(task.id))
        service.sync(full=True)
        (again,) = open_tasks(admin, service.project(Tier.TECHNICIAN), record)
    assert again.created_at > task.created_at
    assert "task deleted" in [entry.happened for entry in service.history(record.image_id)]


def test_a_wrong_secret_and_a_malformed_body_are_refused(stack: Stack) -> None:
    address = f"{stack.review_url}/webhook"
    assert requests.post(address, json={}, timeout=10).status_code == 401
    header = {"X-Dermloop-Secret": stack.secrets.webhook}
    answer = requests.post(address, data=b"[1, 2", headers=header, timeout=10)
    assert (answer.status_code, "webhook body" in answer.json()["error"]) == (400, True)


def test_what_two_readers_paint_is_merged_by_staple_and_approved_as_one_mask(stack: Stack) -> None:
    (stack.home.root / "policy.toml").write_text(PAINTING, encoding="utf-8")
    stack.restart(REVIEW)
    with set_up_service(stack) as service, chromium() as browser:
        assert 'BrushLabels name="mask"' in labelling_config(TAXONOMY, Tier.QA, masks=True)
        (record,) = images(stack.home.images, 104, 1)
        service.register([record])
        say(stack, service, login_of(stack, Role.TECHNICIAN), Tier.TECHNICIAN, record, a_result([a_lesion("nv", 60)]))
        for number, left in enumerate((0.33, 0.36)):
            reader = login_of(stack, Role.DERMATOLOGIST, number)
            page = opened(stack, service, browser, reader, Tier.DERMATOLOGIST, record)
            page.paint("Melanocytic nevus", left, 0.15, 0.18, 0.4)
            page.choose("Correct")
            page.screenshot(f"painted-{number + 1}")
            page.submit()
            service.settle()
        readings = [a.annotation.lesions for a in service.review(record.image_id).readings(Tier.DERMATOLOGIST)]
        one, other = (lesion.shape for (lesion,) in readings)
        assert isinstance(one, RleMask) and isinstance(other, RleMask) and 0.6 < dice(one, other) < 1
        page = opened(stack, service, browser, login_of(stack, Role.QA), Tier.QA, record)
        assert page.pixels_of_colour(SEVERITY_COLOURS[Severity.LOW]) > 200, "the merged mask is drawn"
        page.choose("Approve")
        page.screenshot("painted-qa")
        page.submit()
        service.settle()
        ((found, given),) = [pair for pair in service.approved() if pair[0].image_id == record.image_id]
        assert given[0].level is TruthLevel.CONSENSUS
        (lesion,) = given[0].lesions
        assert lesion.shape == merge_masks([one, other])
        agreed = next(entry for entry in service.history(found.image_id) if entry.happened == "agreed")
        assert agreed.reason == "all 2 readers"
        assert service.verify_audit() == ()


def opened(
    stack: Stack, service: ReviewService, browser: Browser, who: Login, tier: Tier, record: ImageRecord
) -> LabelStudioPage:
    """Somebody's browser with their open task of an image."""
    with signed_in(stack, who) as client:
        tasks = open_tasks(client, service.project(tier), record)
    task = next(task for task in tasks if task.data[TaskField.ASSIGNEE] in ("", who.email))
    page = LabelStudioPage(browser, stack.label_studio_url, who.email, who.password)
    page.open_task(service.project(tier), task.id)
    return page
