"""Three signed-in people take one image through the three tiers in Chromium; what they see is kept as screenshots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from conftest import PlayedLoop
from label_studio_page import LabelStudioPage, chromium
from playwright.sync_api import Browser

from converters.label_studio.config import SEVERITY_COLOURS
from converters.label_studio.controls import Tier, Verdict
from converters.taxonomy import Severity
from dermloop.loop.annotators import Annotator, OpenTask
from dermloop.stack.secrets import Login
from review_workflow.people import Role
from review_workflow.states import ReviewState

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
_BOX_PIXELS = 200


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def login(played: PlayedLoop, role: Role, email: str | None = None) -> Login:
    return next(p for p in played.stack.people if p.role is role and email in (None, p.email))


def open_tasks(played: PlayedLoop, person: Login, tier: Tier) -> list[OpenTask]:
    played.service.settle()
    annotator = Annotator(played.stack.label_studio_url, person.email, person.token, played.service.taxonomy)
    with closing(annotator):
        return annotator.open_tasks(played.service.project(tier), lambda image_id: played.service.record(image_id).size)


def sign_in(played: PlayedLoop, browser: Browser, person: Login) -> LabelStudioPage:
    return LabelStudioPage(browser, played.stack.label_studio_url, person.email, person.password)


def suspicious(task: OpenTask) -> bool:
    return any(lesion.severity in ("high", "moderate") for one in task.suggestions for lesion in one.lesions)


def test_one_image_through_three_tiers(played: PlayedLoop, browser: Browser) -> None:
    technician = login(played, Role.TECHNICIAN)
    waiting = open_tasks(played, technician, Tier.TECHNICIAN)
    task = next(task for task in waiting if suspicious(task))
    severity = next(x.severity for x in task.suggestions[0].lesions if x.severity != "low")
    colour = SEVERITY_COLOURS[Severity(severity or "low")]

    page = sign_in(played, browser, technician)
    page.open_queue(played.service.project(Tier.TECHNICIAN))
    page.screenshot("1-technician-queue")
    page.open_task(played.service.project(Tier.TECHNICIAN), task.task_id)
    page.screenshot("2-technician-task")
    assert page.pixels_of_colour(colour) > _BOX_PIXELS, "the model's box is drawn on the image"
    assert "diagnosis open" in page.text()
    page.submit()

    readers = 0
    for person in (p for p in played.stack.people if p.role is Role.DERMATOLOGIST):
        mine = [t for t in open_tasks(played, person, Tier.DERMATOLOGIST) if t.image_id == task.image_id]
        for found in mine:
            page = sign_in(played, browser, person)
            page.open_task(played.service.project(Tier.DERMATOLOGIST), found.task_id)
            assert page.pixels_of_colour(colour) > _BOX_PIXELS, "the technician's box is drawn on the image"
            assert technician.email in page.text()
            page.choose(Verdict.ACCEPT)
            page.screenshot(f"3-dermatologist-{readers + 1}")
            page.submit()
            readers += 1
    assert readers == 2, "a suspicious finding is read twice"

    reader = login(played, Role.QA)
    decided = next(t for t in open_tasks(played, reader, Tier.QA) if t.image_id == task.image_id)
    page = sign_in(played, browser, reader)
    page.open_task(played.service.project(Tier.QA), decided.task_id)
    assert page.pixels_of_colour(colour) > _BOX_PIXELS, "the readers' box is drawn on the image"
    page.choose(Verdict.APPROVE)
    page.screenshot("4-qa-task")
    page.submit()

    played.service.settle()
    assert played.service.review(task.image_id).state is ReviewState.APPROVED
