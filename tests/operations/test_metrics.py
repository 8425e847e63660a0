"""What processes count adds up over all of them; what is lost of the webhooks is counted once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from builders_review import TECHNICIAN, MemoryLabelStudio, Ticking, a_lesion, a_result, a_service, a_store, an_image

from converters.label_studio.controls import Tier
from review_workflow.metrics import ReviewMetrics
from review_workflow.webhook_loss import PATIENCE, Untold
from review_workflow.webhooks import Hint
from telemetry import catalogue
from telemetry.catalogue import CATALOGUE, Kind
from telemetry.metrics import Meter, State

COUNTING = """
import sys
from telemetry import catalogue
from telemetry.metrics import Meter
meter = Meter(catalogue.PICTURES)
meter.count(catalogue.PICTURES, "analysed", by=int(sys.argv[1]))
meter.answered("/predict", 200, 0.2)
"""


def test_every_metric_has_a_name_of_its_own_and_a_kind_that_its_name_tells() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)
    for metric in CATALOGUE:
        assert metric.name.startswith("dermloop_")
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)


def test_several_processes_behind_one_port_add_up_and_a_state_is_the_present_one(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for count in ("2", "3"):
        subprocess.run([sys.executable, "-c", COUNTING, count], env=environment, check=True, timeout=60)
    look = (
        "from telemetry import catalogue; from telemetry.metrics import Meter, State;"
        "print(Meter().page([State(catalogue.READY, 1)]).decode())"
    )
    command = [sys.executable, "-c", look]
    page = subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True, text=True).stdout
    assert 'dermloop_pictures_total{outcome="analysed"} 5.0' in page
    assert 'dermloop_request_seconds_count{route="/predict",status="200"} 2.0' in page
    assert "dermloop_ready 1.0" in page


def test_one_process_shows_its_counts_and_the_states() -> None:
    meter = Meter(catalogue.LESION_SCORE)
    meter.observe(catalogue.LESION_SCORE, 0.42, "tiny-1")
    page = meter.page([State(catalogue.WAITING, 7, ("1",))]).decode()
    assert 'dermloop_lesion_score_bucket{le="0.45",version="tiny-1"} 1.0' in page
    assert 'dermloop_review_waiting{tier="1"} 7.0' in page


def test_an_answer_that_no_webhook_tells_of_in_time_is_lost() -> None:
    found = Untold().found({7, 8}, now=100.0).told({8})
    assert found.settled(100.0 + PATIENCE / 2) == found
    assert found.settled(100.0 + PATIENCE) == Untold({}, 1)


def test_the_review_counts_lost_webhooks_and_what_happened(tmp_path: Path) -> None:
    studio, clock = MemoryLabelStudio(), Ticking()
    service = a_service(a_store(tmp_path), studio, clock=clock)
    service.register([an_image(number) for number in range(2)])
    service.sync()
    told, untold = studio.open_tasks(Tier.TECHNICIAN)
    metrics = ReviewMetrics(service, expects_webhooks=True)
    for task in (told, untold):
        studio.annotate(task.task_id, TECHNICIAN.user_id or 0, a_result([a_lesion()]))
    metrics.received("ANNOTATION_CREATED")
    service.receive(Hint(told.project_id, (told.task_id,), "ANNOTATION_CREATED"))
    service.sync()
    for _ in range(int(PATIENCE) + 1):
        clock()
    service.sync()
    page = metrics.page(failing=False).decode()
    assert "dermloop_review_webhooks_lost_total 1.0" in page
    assert 'dermloop_review_webhooks_total{action="ANNOTATION_CREATED"} 1.0' in page
    assert 'dermloop_review_events_total{happened="labelled"} 2.0' in page
    assert 'dermloop_review_waiting{tier="2"} 2.0' in page and 'dermloop_review_waiting{tier="1"} 0.0' in page
    assert metrics.page(failing=True).decode().count("dermloop_review_sync_failing 1.0") == 1
    service.close()
