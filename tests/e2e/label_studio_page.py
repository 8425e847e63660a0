"""A person at Label Studio's pages in Chromium: signs in, opens a task, reads what is shown, answers, submits."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

OUTPUT = Path(__file__).parent.parent / "output"
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
_PATIENCE_MS = 60_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """The distribution's Chromium; a clear failure where it is missing."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "Chromium is missing: `make system` installs it."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        yield browser
        browser.close()


class LabelStudioPage:
    """One signed-in person's browser window."""

    def __init__(self, browser: Browser, url: str, email: str, password: str) -> None:
        self._url = url
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        self.page: Page = context.new_page()
        self.page.set_default_timeout(_PATIENCE_MS)
        self.page.goto(f"{url}/user/login")
        self.page.fill("input[name=email]", email)
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda address: "/user/login" not in address, wait_until="domcontentloaded")

    def open_queue(self, project: int) -> None:
        """Shows the project's Data Manager."""
        self.page.goto(f"{self._url}/projects/{project}/data")
        self.page.wait_for_load_state("networkidle")

    def label_all(self, project: int) -> None:
        """Starts the label stream, which offers one task after the other, and puts the instructions away."""
        self.open_queue(project)
        self.page.get_by_role("button", name=re.compile("^Label .*Task")).first.click()
        instructions = self.page.get_by_text("Labeling Instructions")
        instructions.wait_for()
        self.page.keyboard.press("Escape")
        instructions.wait_for(state="hidden")
        expect(self._submit).to_be_visible(timeout=_PATIENCE_MS)
        self.image.wait_for()
        self.page.wait_for_timeout(1500)

    def open_task(self, project: int, task: int) -> None:
        """Shows one task with its image loaded."""
        self.page.goto(f"{self._url}/projects/{project}/data?task={task}")
        expect(self._submit).to_be_visible(timeout=_PATIENCE_MS)
        self.image.wait_for()
        self.page.wait_for_timeout(1500)

    @property
    def _submit(self) -> Locator:
        return self.page.get_by_test_id("bottombar-submit-button")

    @property
    def image(self) -> Locator:
        """The canvas stage that shows the picture with its boxes."""
        return self.page.locator(".konvajs-content").first

    def text(self) -> str:
        """Everything that can be read on the page."""
        return str(self.page.locator("body").inner_text())

    def pixels_of_colour(self, colour: str, tolerance: int = 40) -> int:
        """How many pixels of the shown picture have about this `#rrggbb` colour."""
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        shown = np.asarray(Image.open(io.BytesIO(self.image.screenshot())).convert("RGB")).astype(int)
        return int((np.abs(shown - wanted).max(axis=2) <= tolerance).sum())

    def choose(self, label: str) -> None:
        """Ticks the choice with this label."""
        choice = self.page.locator("label", has_text=re.compile(f"^{re.escape(label)}")).first
        choice.click()
        expect(choice.locator("input")).to_be_checked()

    def paint(self, label: str, left: float, top: float, width: float, height: float) -> None:
        """Paints a rectangle (shares of the picture) with the brush of a label, in lines from side to side."""
        self.page.locator(".lsf-label", has_text=label).last.click()
        shown = self.image.bounding_box()
        assert shown is not None
        points = [(left + width * (row % 4 in (1, 2)), top + height * (row // 2) / 10) for row in range(22)]
        where = [(shown["x"] + x * shown["width"], shown["y"] + y * shown["height"]) for x, y in points]
        self.page.mouse.move(*where[0])
        self.page.mouse.down()
        for x, y in where[1:]:
            self.page.mouse.move(x, y, steps=4)
        self.page.mouse.up()
        expect(self.page.locator(".lsf-outliner-item")).to_have_count(2)

    def submit(self) -> None:
        """Presses Submit and waits until Label Studio has stored the answer."""
        with self.page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as answer:
            self._submit.click()
        assert answer.value.status == 201, answer.value.text()

    def screenshot(self, name: str) -> Path:
        """Keeps what the person sees under the test's output folder."""
        OUTPUT.mkdir(exist_ok=True)
        path = OUTPUT / f"{name}.png"
        self.page.screenshot(path=path)
        return path
