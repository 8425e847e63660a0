"""The loop, end to end, against the real programs."""

from __future__ import annotations

import pytest
import requests
from conftest import IMAGES, PlayedLoop

from converters import dataset
from dermloop.freeze import latest
from dermloop.loop.report import STAGES
from dermloop.stack.programs import BACKEND, REVIEW
from ml_backend.bundle import champion_version, load_bundle

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def test_every_stage_came_in_order_and_held(played: PlayedLoop) -> None:
    assert [line["stage"] for line in played.lines] == list(STAGES)
    assert [line for line in played.lines if not line["ok"]] == []
    assert played.held


def test_the_tiers_used_every_verdict_and_settled_every_dispute(played: PlayedLoop) -> None:
    second, third = played.stage("tier2"), played.stage("tier3")
    assert min(second[verdict] for verdict in ("accept", "correct", "send_back")) > 0
    assert min(third[verdict] for verdict in ("approve", "correct", "send_back", "exclude")) > 0
    assert second["resubmitted"] == second["reasons_seen"] > 0
    assert second["disputed"] > 0 and third["adjudicated"] > 0
    assert sum(third["states"].values()) == IMAGES


def test_the_audit_log_of_all_that_verifies(played: PlayedLoop) -> None:
    assert list(played.service.verify_audit()) == []
    assert len(played.service.history()) > IMAGES


def test_the_frozen_version_holds_every_approved_image_once_and_verifies(played: PlayedLoop) -> None:
    version = latest(played.stack.home.root / "datasets")
    dataset.load(version.root).verify()
    approved = {record.image_id for record, _ in played.service.approved()}
    assert sorted(item.record.image_id for item in version.dataset.items) == sorted(approved)
    assert all(item.record.synthetic for item in version.dataset.items)


def test_the_promoted_bundle_is_what_the_backend_serves(played: PlayedLoop) -> None:
    models = played.stack.home.models
    version = champion_version(models)
    assert version is not None
    assert load_bundle(models / version).version == played.stage("refresh")["model_version"]
    assert played.stage("swap")["failed"] == 0


def test_a_worse_candidate_was_refused_with_its_reasons(played: PlayedLoop) -> None:
    worse = played.stage("gate")["worse_candidate"]
    assert worse["passed"] is False
    assert worse["policy"] == "rehearsal"
    assert worse["reasons"]


@pytest.mark.parametrize("program", [BACKEND, REVIEW])
def test_a_killed_program_comes_back_with_nothing_lost(played: PlayedLoop, program: str) -> None:
    before = dict(played.service.states())
    played.stack.kill(program)
    played.stack.restart(program)
    address = played.stack.backend_url if program == BACKEND else played.stack.review_url
    assert requests.get(f"{address}/health", timeout=10).status_code == 200
    played.service.sync(full=True)
    assert dict(played.service.states()) == before
    assert list(played.service.verify_audit()) == []
