"""The expected cost is reckoned from the sheet, and the page says what the sheet says."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dermloop.aws import cost
from dermloop.aws.cli import app
from dermloop.aws.settings import AwsSettings
from dermloop.aws.stack import TEMPLATE

PAGE = Path(__file__).parents[2] / "docs" / "aws-cost.md"
SHEET = cost.read()
SHOWN = (1_000, 10_000, 100_000)


def test_the_page_shows_what_the_sheet_gives() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert cost.table([cost.month(count, SHEET) for count in SHOWN]) in text
    assert f"**{SHEET.measured['processor_seconds']} processor seconds**" in text
    assert all(f"| `{name}` | {price:.10g} | {SHEET.sources[name]} |" in text for name, price in SHEET.prices.items())
    assert SHEET.looked_up in text and SHEET.region in text


def test_one_thousand_pictures_a_day_reckoned_by_hand() -> None:
    found = cost.month(1_000, SHEET)
    seconds = 30_000 * (0.237 * 1.5 + 0.3 + 0.2) + 30_000 * 0.2
    assert found.functions == pytest.approx(seconds * 3008 / 1024 * 0.00001667 + 90_000 / 1e6 * 0.20)
    assert found.queue == pytest.approx((180_000 + 650_000) / 1e6 * 0.40)
    assert found.objects == pytest.approx(90 * 0.005 + 210 * 0.0004)
    assert found.api == pytest.approx(0.03 * 3.5)
    assert found.batch == pytest.approx(30 * (1_000 * 0.237 * 1.5 / 2 / 3600 + 8 / 60) * 0.269)
    assert found.endpoint == pytest.approx(24 * 30 * 0.269)


def test_a_busier_day_costs_more_in_every_part_and_less_for_each_picture() -> None:
    months = [cost.month(count, SHEET) for count in SHOWN]
    for less, more in pairwise(months):
        assert more.uploads > less.uploads and more.batch > less.batch
        assert more.for_a_thousand <= less.for_a_thousand
    slow = replace(SHEET, measured={**SHEET.measured, "processor_seconds": 10.0})
    assert cost.month(100_000, slow).endpoint_instances > 1


def test_the_sheet_reckons_with_the_templates_own_defaults() -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    assert f"Default: {SHEET.assumed['function_mb']:.0f}" in text
    instance = AwsSettings().backfill_instance
    assert instance in SHEET.sources["instance_hour"] and f"Default: {instance}" in text


def test_the_command_prints_a_row_for_each_number_of_pictures() -> None:
    found = CliRunner().invoke(app, ["cost", "--images", "50", "--images", "500", "--json"], catch_exceptions=False)
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["images_a_day"] for row in rows] == [50, 500]
    assert rows[1]["uploads"] == pytest.approx(cost.month(500, SHEET).uploads)
