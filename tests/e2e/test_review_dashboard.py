"""The dashboard in Chromium: by keyboard alone, at phone width, with boxes where they belong."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders_review import (
    ANNA,
    BEN,
    QA,
    SIZE,
    TECHNICIAN,
    TWO_READERS,
    MemoryLabelStudio,
    Ticking,
    a_lesion,
    a_result,
    a_service,
    a_store,
    an_image,
)
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from pydantic import SecretStr
from werkzeug.serving import make_server

from converters.label_studio.controls import Tier
from review_workflow.app import create_app
from review_workflow.settings import ReviewSettings

pytestmark = pytest.mark.e2e
OUTPUT = Path(__file__).parent.parent / "output"


class House:
    """Knows everybody's password: their own address."""

    def knows(self, email: str, password: str) -> bool:
        return email == password


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running dashboard with one disputed image."""
    home = tmp_path_factory.mktemp("home")
    (home / "images").mkdir()
    Image.new("RGB", (SIZE.width, SIZE.height), "tan").save(home / an_image().uri)
    studio = MemoryLabelStudio()
    service = a_service(a_store(home), studio, TWO_READERS, Ticking())
    service.register([an_image()])
    said = (
        (Tier.TECHNICIAN, TECHNICIAN, "nv", None),
        (Tier.DERMATOLOGIST, ANNA, "nv", "Accept"),
        (Tier.DERMATOLOGIST, BEN, "mel", "Correct"),
    )
    for tier, person, diagnosis, verdict in said:
        service.sync()
        (task,) = studio.open_tasks(tier, person)
        studio.annotate(task.task_id, person.user_id or 0, a_result([a_lesion(diagnosis)], verdict))
    service.sync()
    secret = SecretStr("secret")
    settings = ReviewSettings(
        home=home, label_studio_token=secret, webhook_secret=secret, session_secret=secret, sync_seconds=3600
    )
    app = create_app(settings, service, House())
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    app.extensions["background"].stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "Chromium is missing: `make system` installs it."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


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
