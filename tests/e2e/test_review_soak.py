"""Two hundred images on a real Label Studio, while the service is killed ten times and Label Studio twice."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from review_players import (
    assert_nothing_lost_or_doubled,
    images,
    kill_all_the_way,
    people_at_work,
    running_stack,
    set_up_service,
    until,
)

pytestmark = [pytest.mark.soak, pytest.mark.timeout(5400)]
IMAGES = 200
KILLS = 10
OUTPUT = Path(__file__).parent.parent / "output"


def test_two_hundred_images_survive_ten_kills_and_two_of_label_studio(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack, set_up_service(stack) as service:
        records = images(stack.home.images, 0, IMAGES)
        assert service.register(records) == IMAGES
        began, first = time.monotonic(), service.audit_head().seq
        progress = [first + IMAGES * (number + 1) * 3 // KILLS for number in range(KILLS)]
        with people_at_work(stack, service):
            kill_all_the_way(stack, service, progress, studio_at={3, 7})
            until(lambda: dict(service.states()) == {"approved": IMAGES}, 1800, lambda: str(service.status()))
        seconds = time.monotonic() - began
        assert_nothing_lost_or_doubled(stack, service, records)
        happened = [entry.happened for entry in service.history()]
        figures = {name: happened.count(name) for name in ("labelled", "read", "sent back", "disputed", "approved")}
        OUTPUT.mkdir(exist_ok=True)
        report = {"images": IMAGES, "kills": KILLS, "seconds": round(seconds), "entries": len(happened), **figures}
        (OUTPUT / "review-soak.json").write_text(json.dumps(report))
