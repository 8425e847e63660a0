"""The page at `/` in Chromium: a picture goes in, boxes, differential, heat-map and the disclaimer come out."""

from __future__ import annotations

import base64
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders_serving import DARK, SKIN, bundle, encoded
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Page, expect, sync_playwright
from werkzeug.serving import make_server

from ml_backend.app import create_app
from ml_backend.settings import read_settings

pytestmark = pytest.mark.e2e
OUTPUT = Path(__file__).parents[1] / "output"
TOKEN = "reader-token-0123456789"


def picture() -> bytes:
    image = Image.new("RGB", (960, 720), SKIN)
    pen = ImageDraw.Draw(image)
    pen.ellipse((140, 200, 360, 430), fill=DARK)
    pen.ellipse((600, 300, 760, 440), fill=(90, 50, 45))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(3)), dtype=np.int16)
    noise = np.random.default_rng(3).normal(0, 4, soft.shape)
    return encoded((soft + noise).clip(0, 255).astype(np.uint8), "JPEG", quality=92)


@pytest.fixture(params=["open", "token", "login"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    bundle(tmp_path)
    (tmp_path / "skin.jpg").write_bytes(picture())
    (tmp_path / "note.jpg").write_bytes(b"no picture")
    shown = {
        "token": {"tokens": f"reader:{TOKEN}"},
        "login": {"tokens": f"reader:{TOKEN}", "basic_auth_user": "ls", "basic_auth_password": "grüezi"},
    }
    app = create_app(read_settings(home=tmp_path, **shown.get(request.param, {})))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "Chromium is missing: install the distribution's package."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": 1200, "height": 900})
        opened.set_default_timeout(30_000)
        opened.goto(f"http://127.0.0.1:{server.server_port}/")
        yield opened
        browser.close()
    server.shutdown()
    server.server_close()
    thread.join()
    app.extensions["dermloop"].close()


@pytest.mark.parametrize("page", ["open"], indirect=True)
def test_a_picture_is_read_and_shown(page: Page, tmp_path: Path) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.set_input_files("#file", tmp_path / "skin.jpg")
    expect(page.locator("#lesions li")).to_have_count(2)
    expect(page.locator("#boxes rect")).to_have_count(2)
    expect(page.locator("#status")).to_contain_text("dermatologist")
    expect(page.locator("#model")).to_contain_text("tiny-")
    expect(page.locator("footer")).to_contain_text("no diagnosis")
    shown = page.locator("#shown").bounding_box()
    drawn = page.locator("#boxes rect").first.bounding_box()
    assert shown and drawn
    left = (drawn["x"] - shown["x"]) / shown["width"]
    assert abs(left - 140 / 960) < 0.02
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / "page.png", full_page=True)
    page.focus("#again")
    for chosen in (0, 1):
        page.keyboard.press("Tab")
        expect(page.locator("#boxes rect").nth(chosen)).to_have_class("chosen")
    page.locator("#lesions li").first.click()
    expect(page.locator("#boxes rect").first).to_have_class("chosen")
    page.locator(".switch").click()
    expect(page.locator("#shown")).to_have_attribute("src", re.compile("^data:image/jpeg"))
    page.wait_for_timeout(300)
    page.screenshot(path=OUTPUT / "page-heat.png", full_page=True)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.screenshot(path=OUTPUT / "page-phone.png", full_page=True)
    page.click("#again")
    expect(page.locator("#drop")).to_be_visible()
    page.set_input_files("#file", tmp_path / "note.jpg")
    expect(page.locator("#status")).to_contain_text("JPEG or PNG")
    expect(page.locator("#stage")).to_be_hidden()
    assert problems == []


@pytest.mark.parametrize("page", ["token"], indirect=True)
def test_with_tokens_the_page_asks_for_one(page: Page, tmp_path: Path) -> None:
    expect(page.locator("#login")).to_be_visible()
    page.set_input_files("#file", tmp_path / "skin.jpg")
    expect(page.locator("#status")).to_contain_text("login")
    page.fill("#token", TOKEN)
    page.click("#login button")
    expect(page.locator("#lesions li")).to_have_count(2)


@pytest.mark.parametrize("page", ["login"], indirect=True)
@pytest.mark.parametrize("given", [TOKEN, "ls:grüezi"])
def test_with_label_studio_s_login_too_either_opens_the_page(page: Page, tmp_path: Path, given: str) -> None:
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.type(given)
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_contain_text("tiny-")
    page.set_input_files("#file", tmp_path / "skin.jpg")
    expect(page.locator("#lesions li")).to_have_count(2)


@pytest.mark.parametrize("page", ["open"], indirect=True)
def test_a_second_picture_can_be_dropped_anywhere(page: Page, tmp_path: Path) -> None:
    content = base64.b64encode((tmp_path / "skin.jpg").read_bytes()).decode()
    drop = """(content) => {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], "skin.jpg", { type: "image/jpeg" }));
        document.querySelector("footer").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
    }"""
    page.set_input_files("#file", tmp_path / "note.jpg")
    expect(page.locator("#status")).to_contain_text("JPEG or PNG")
    page.evaluate(drop, content)
    expect(page.locator("#lesions li")).to_have_count(2)
    expect(page.locator("#stage")).to_be_visible()
