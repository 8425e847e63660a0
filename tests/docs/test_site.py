"""The documentation builds with warnings as errors, needs nothing from elsewhere, and says what dermloop is not for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from pydantic_settings import BaseSettings

from ml_backend.settings import Settings
from review_workflow.settings import ReviewSettings
from telemetry.settings import TelemetrySettings

ROOT = Path(__file__).parents[2]
LARGEST = 320_000
KEPT_SHORT = 90


class Fetched(HTMLParser):
    """Addresses that a browser fetches by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.append(found.get("src") or "")
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.addresses.append(found.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return target


def test_each_page_is_built_and_in_the_navigation(site: Path) -> None:
    front = (site / "index.html").read_text(encoding="utf-8")
    written = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    built = {path.relative_to(site) for path in site.rglob("*.html")}
    assert len(written) > 20
    assert [str(page) for page in written if page.with_suffix(".html") not in built] == []
    assert "404.html" in {str(page) for page in built}
    pages = sorted(str(page) for page in built - {Path("404.html"), Path("index.html")})
    assert [page for page in pages if f'href="{page}"' not in front] == []


def test_a_page_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = Fetched()
        fetched.feed(page.read_text(encoding="utf-8"))
        assert [address for address in fetched.addresses if re.match(r"(https?:)?//", address)] == [], page


def test_the_reference_holds_what_the_code_has(site: Path) -> None:
    wanted = {
        "commands": ["dermloop review verify-audit", "--allow-loss", "DERMLOOP_HOME"],
        "settings": [
            "DERMLOOP_ML_PREDICT_SECONDS",
            "DERMLOOP_REVIEW_METRICS_TOKEN",
            "DERMLOOP_LOG_FORMAT",
            "batch_norm",
        ],
        "rest": ["POST /v1/analyze", "model_version"],
        "policies": ["share_with_second", "malignant_sensitivity", "icd_o"],
        "bundle": ["conformal_threshold"],
        "dataset": ["patient_id"],
        "audit": ["previous", "outbox"],
        "review": ["disputed"],
        "formats": ["ground-truth-boxes"],
        "metrics": ["dermloop_review_webhooks_lost_total"],
    }
    for page, words in wanted.items():
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        assert [word for word in words if word not in text] == [], page


def test_every_page_that_shows_a_reading_says_that_it_is_no_diagnosis(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert "no diagnosis" in page.read_text(encoding="utf-8").lower(), page


def test_pictures_are_small_and_each_is_used() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in [*ROOT.glob("*/*.md"), *ROOT.glob("docs/*/*.md")])
    text += (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < LARGEST, picture
        assert picture.name in text, picture
        if picture.suffix in (".png", ".jpg"):
            with Image.open(picture) as opened:
                opened.verify()


def test_the_readme_stays_short_and_leads_to_the_site() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < KEPT_SHORT
    assert "docs/index.md" in readme and "docs/intended-use.md" in readme


@pytest.mark.parametrize("model", [Settings, ReviewSettings, TelemetrySettings])
def test_every_setting_explains_itself(model: type[BaseSettings]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []
