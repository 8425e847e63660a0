"""Promotion and rollback move one pointer and leave a line each that nobody rewrites."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders_serving import bundle
from builders_training import report_of

from ml_backend.bundle import champion_version
from training import registry
from training.errors import RegistryError
from training.gate import Check, GateDecision, Part
from training.registry import Change, Promotion

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


def passed(version: str) -> GateDecision:
    return GateDecision(True, "clinical", version, None)


def test_a_promotion_moves_the_pointer_and_is_logged(tmp_path: Path) -> None:
    one = bundle(tmp_path, champion=False)
    entry = registry.promote(
        one.root.parent, one.version, passed(one.version), why="better", who="ada", now=lambda: NOON
    )
    assert entry == Promotion(Change.PROMOTE, one.version, None, "ada", NOON.isoformat(), "better", "clinical")
    assert registry.history(one.root.parent) == (entry,)
    assert champion_version(one.root.parent) == one.version


def test_a_refused_version_is_not_promoted_unless_forced_and_then_the_log_says_so(tmp_path: Path) -> None:
    one = bundle(tmp_path, champion=False)
    check = Check("map50", Part.DETECTOR, False, "map50 0.100: at least 0.500 passes")
    refused = GateDecision(False, "clinical", one.version, None, (check,))
    with pytest.raises(RegistryError, match=r"at least 0\.500 passes"):
        registry.promote(one.root.parent, one.version, refused, why="hope")
    assert champion_version(one.root.parent) is None
    entry = registry.promote(one.root.parent, one.version, refused, why="hope", force=True)
    assert entry.forced == refused.reasons


def test_a_decision_on_another_version_does_not_count(tmp_path: Path) -> None:
    one = bundle(tmp_path, champion=False)
    with pytest.raises(RegistryError, match="the decision is on other"):
        registry.promote(one.root.parent, one.version, passed("other"), why="mistake")


def test_rollback_returns_to_the_champion_before(tmp_path: Path) -> None:
    versions = [bundle(tmp_path, champion=False, name=name) for name in ("one", "two", "three")]
    models = versions[0].root.parent
    for each in versions:
        registry.promote(models, each.version, passed(each.version), why="better")
    assert registry.rollback(models, why="worse in use").version == versions[1].version
    assert registry.rollback(models, why="still worse").version == versions[0].version
    assert champion_version(models) == versions[0].version
    with pytest.raises(RegistryError, match="champion before"):
        registry.rollback(models, why="further")
    assert len(registry.history(models)) == 5


def test_rollback_only_goes_to_a_former_champion(tmp_path: Path) -> None:
    one, other = (bundle(tmp_path, champion=False, name=name) for name in ("one", "two"))
    registry.promote(one.root.parent, one.version, passed(one.version), why="first")
    with pytest.raises(RegistryError, match="champion before"):
        registry.rollback(one.root.parent, why="try", to=other.version)


def test_an_unknown_version_names_the_known_ones(tmp_path: Path) -> None:
    one = bundle(tmp_path, champion=False)
    with pytest.raises(RegistryError, match=one.version):
        registry.load_bundle(one.root.parent, "nothing")


def test_a_report_is_kept_beside_its_bundle_under_the_content_it_was_measured_on(tmp_path: Path) -> None:
    one, report = bundle(tmp_path), report_of(12)
    from converters.dataset import Split

    assert registry.load_report(one, Split.TEST, report.split_digest) is None
    registry.save_report(one, report)
    assert registry.load_report(one, Split.TEST, report.split_digest) == report
    assert registry.load_report(one, Split.TEST, "0" * 64) is None


def test_a_policy_may_ask_for_a_dermatologists_signature(tmp_path: Path) -> None:
    one = bundle(tmp_path, champion=False)
    decision = replace(passed(one.version), needs_sign_off=True)
    with pytest.raises(RegistryError, match="dermatologist's signature"):
        registry.promote(one.root.parent, one.version, decision, why="better")
    assert registry.history(one.root.parent) == ()
    entry = registry.promote(one.root.parent, one.version, decision, why="better", signed_by="Dr Ada")
    assert (entry.signed_by, entry.forced) == ("Dr Ada", ())
