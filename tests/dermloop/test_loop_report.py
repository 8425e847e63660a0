"""The loop succeeds only when every stage came, in order, and kept its promises."""

from __future__ import annotations

import io
import json

import pytest

from dermloop.loop.report import STAGES, LoopReport
from dermloop.stages import StageLine


def test_all_stages_in_order_that_hold_make_a_complete_loop() -> None:
    report = LoopReport(io.StringIO())
    for stage in STAGES:
        report.add(StageLine(stage, 1.0))
    assert report.complete


@pytest.mark.parametrize("stage", STAGES)
def test_one_missing_stage_fails_the_loop(stage: str) -> None:
    report = LoopReport(io.StringIO())
    for name in STAGES:
        if name != stage:
            report.add(StageLine(name, 1.0))
    assert not report.complete


def test_a_broken_promise_is_printed_and_fails_the_loop() -> None:
    out = io.StringIO()
    report = LoopReport(out)
    report.timed("ingest", lambda: ({"images": 3}, {"every image is stored": False, "nothing is doubled": True}))
    line = json.loads(out.getvalue())
    assert (line["stage"], line["images"], line["ok"]) == ("ingest", 3, False)
    assert line["failures"] == ["every image is stored"]
    assert not report.complete


def test_a_line_reads_back_equal() -> None:
    line = StageLine("gate", 1.5, {"policy": "small-set", "passed": False}, ("sensitivity fell",))
    assert StageLine.decode(line.encode()) == line
