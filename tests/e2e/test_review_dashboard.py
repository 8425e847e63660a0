"""The dashboard in Chromium: by keyboard alone, at phone width, with boxes where they belong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders_dashboard import BusyHouse, a_home, a_job, an_app, served
from builders_review import QA, SIZE, an_image
from label_studio_page import chromium
from playwright.sync_api import Browser, Page

from review_workflow.training_jobs import EXTENSION

pytestmark = pytest.mark.e2e
OUTPUT = Path(__file__).parent.parent / "output"
IMAGES = 18


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running dashboard with several weeks of work behind it, and a retraining that runs."""
    home = a_home(tmp_path_factory.mktemp("home"), IMAGES)
    app = an_app(home, BusyHouse(home).play(IMAGES))
    app.extensions[EXTENSION].jobs.append(a_job("running"))
    with served(app) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A QA reader's window, signed in by keyboard alone."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.goto(address)
    page.locator("input[name=email]:focus").wait_for()
    page.keyboard.type(QA.email)
    page.keyboard.press("Tab")
    page.locator("input[type=password]:focus").wait_for()
    page.keyboard.type(QA.email)
    page.keyboard.press("Tab")
    page.locator("button:focus").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/")
    yield page
    context.close()


def test_every_page_is_reached_with_the_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    for title in ("Overview", "Disputed", "Training", "Audit"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == title
    page.keyboard.press("Enter")
    page.wait_for_url("**/audit")
    assert page.get_by_text("Verified: the log is as it was written.").is_visible()


def test_boxes_lie_on_the_picture(page: Page, address: str) -> None:
    page.goto(f"{address}/disputed")
    picture, overlay = page.locator(".picture img").bounding_box(), page.locator(".picture svg").bounding_box()
    assert picture is not None and overlay is not None
    assert all(abs(picture[side] - overlay[side]) < 1 for side in ("x", "y", "width", "height"))
    box = page.locator(".picture rect").first.bounding_box()
    assert box is not None
    scale = picture["width"] / SIZE.width
    assert abs(box["x"] - picture["x"] - 10 * scale) < 3
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / "review-disputed.png")


@pytest.mark.parametrize(
    "path", ["/", "/disputed", "/training", "/audit", f"/images/{an_image().image_id}", f"/people/{QA.email}"]
)
def test_no_page_is_wider_than_a_phone(page: Page, address: str, path: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{address}{path}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.get_by_text("Supports annotation and research. No diagnosis.").count() == 1
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"review-phone-{path.strip('/').split('/')[0] or 'overview'}.png", full_page=True)
