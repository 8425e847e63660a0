"""One real stack for the end-to-end tests: Label Studio, backend, review service, worker, and the loop played on it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from dermloop.demo import write_demo
from dermloop.loop.report import LoopReport
from dermloop.loop.run import Loop, LoopOptions
from dermloop.stack import Stack
from dermloop.stack.ports import free_ports
from review_workflow.service import ReviewService

IMAGES = 80
TRAINING = """
[detector]
image_size = 160
epochs = 10
learning_rate = 0.0005
batch = 8
nominal_batch = 8
close_mosaic = 10
validate_each_epoch = false

[classifier]
epochs = 3
fine_tune_learning_rate = 0.0003

[evaluation]
resamples = 200

[gate]
policy = "rehearsal"
policies = "{policies}"
"""
POLICIES = """
[rehearsal]
about = "A dozen synthetic images after a short training: the graphs answer and find lesions. Says nothing of quality."
minimum_images = 6
confidence = 0.5
resamples = 200
slices = []
slice_minimum_cases = 10
slice_margin = 0.3
rules = [
    { metric = "map50", floor = 0.10, margin = 0.5, minimum_cases = 4 },
    { metric = "balanced_accuracy", floor = 0.34, margin = 0.5, minimum_cases = 4 },
]
"""


@dataclass(frozen=True)
class PlayedLoop:
    """A running stack on which the loop has been played, and what each stage reported."""

    stack: Stack
    service: ReviewService
    lines: tuple[dict[str, Any], ...]
    held: bool

    def stage(self, name: str) -> dict[str, Any]:
        return next(line for line in self.lines if line["stage"] == name)


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedLoop]:
    home = tmp_path_factory.mktemp("home")
    table = write_demo(home / "demo", IMAGES, seed=11)
    (home / "policies.toml").write_text(POLICIES, encoding="utf-8")
    (home / "training.toml").write_text(TRAINING.format(policies=home / "policies.toml"), encoding="utf-8")
    out = io.StringIO()
    with Stack.open(home, free_ports(), print) as stack:
        service = stack.open_review()
        held = Loop(stack, service, LoopOptions(home / "demo", table), LoopReport(out), print).run()
        lines = tuple(json.loads(line) for line in out.getvalue().splitlines())
        yield PlayedLoop(stack, service, lines, held)
        service.close()
