"""The gate says what passes; everything else fails, with every reason at once."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_training import report_of

from training.cases import Part, resample_weights
from training.errors import ConfigError
from training.gate import Policy, Rule, decide, read_policies, read_policy

POLICY = Policy(
    name="test",
    about="",
    minimum_images=50,
    confidence=0.9,
    resamples=300,
    rules=(
        Rule("map50", minimum_cases=30, floor=0.5, margin=0.05),
        Rule("balanced_accuracy", minimum_cases=30, floor=0.5, margin=0.05),
        Rule("melanoma_sensitivity", minimum_cases=10, floor=0.6, margin=0.1),
    ),
    slices=("skin_type",),
    slice_minimum_cases=15,
    slice_margin=0.2,
)
CHAMPION = report_of(240, bundle="champion", right=0.85, seed=1)


def test_a_better_candidate_passes() -> None:
    decision = decide(report_of(240, right=0.97, seed=2), CHAMPION, POLICY)
    assert decision.passed, decision.reasons
    assert (decision.candidate, decision.champion, decision.policy) == ("candidate", "champion", "test")
    assert decision.reasons == ()


def test_the_champion_itself_passes() -> None:
    assert decide(replace(CHAMPION, bundle="same"), CHAMPION, POLICY).passed


def test_a_deliberately_worse_candidate_is_refused_with_all_its_reasons() -> None:
    decision = decide(report_of(240, right=0.3, seed=2), CHAMPION, POLICY)
    assert not decision.passed
    assert {"map50", "balanced_accuracy", "melanoma_sensitivity"} <= {c.metric for c in decision.checks if not c.passed}
    assert all(reason for reason in decision.reasons)


def test_better_on_average_but_worse_on_melanoma_is_refused() -> None:
    decision = decide(report_of(240, right=0.99, melanoma_right=0.65, seed=2), CHAMPION, POLICY)
    failed = [check.metric for check in decision.checks if not check.passed]
    assert "melanoma_sensitivity" in failed
    assert decision.passes(Part.PIPELINE)


def test_worse_on_one_skin_type_is_refused() -> None:
    decision = decide(report_of(240, right=0.99, dark_skin_right=0.6, seed=2), CHAMPION, POLICY)
    assert any("skin_type=6" in check.metric for check in decision.checks if not check.passed)


def test_nan_never_passes() -> None:
    blind = report_of(240, right=0.97, seed=2)
    cases = tuple(replace(case, readings=()) for case in blind.cases)
    shares = tuple(
        replace(
            case,
            readings=tuple(replace(r, probabilities=(math.nan,) * 3, malignant_share=math.nan) for r in case.readings),
        )
        for case in blind.cases
    )
    assert not decide(replace(blind, cases=cases), None, POLICY).passed
    calibrated = replace(POLICY, rules=(Rule("brier", minimum_cases=1, ceiling=1.0),))
    assert decide(blind, None, calibrated).passed
    assert not decide(replace(blind, cases=shares), None, calibrated).passed
    quick = replace(POLICY, rules=(Rule("ms_per_image", minimum_cases=1, ceiling=100.0),))
    assert decide(blind, None, quick).passed
    assert not decide(replace(blind, ms_per_image=math.nan), None, quick).passed


def test_too_few_cases_never_pass() -> None:
    decision = decide(report_of(40, right=1.0), None, POLICY)
    assert not decision.passed
    assert "40 test images; test asks for 50 or more" in decision.reasons


def test_an_optional_rule_without_evidence_decides_nothing() -> None:
    rare = replace(POLICY, rules=(*POLICY.rules, Rule("recall.moderate", minimum_cases=5, optional=True)))
    decision = decide(report_of(240, right=0.97, seed=2), CHAMPION, rare)
    assert decision.passed
    assert [check.metric for check in decision.checks if check.no_evidence] == ["recall.moderate"]


def test_another_test_set_never_passes() -> None:
    decision = decide(report_of(240, right=0.97, seed=2, digest="e" * 64), CHAMPION, POLICY)
    assert decision.reasons == ("test sets differ: evaluate both on the same version",)


def test_an_unknown_metric_never_passes() -> None:
    odd = replace(POLICY, rules=(Rule("map51", minimum_cases=1, floor=0.0),))
    assert not decide(report_of(240), CHAMPION, odd).passed


def test_the_shipped_policies_are_readable_and_named() -> None:
    assert set(read_policies()) == {"clinical", "small-set", "first-bundle"}
    with pytest.raises(ConfigError, match="lenient"):
        read_policy("lenient")


def test_a_misspelt_policy_key_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(
        '[mine]\nabout=""\nminimum_images=1\nconfidence=0.9\nresamples=10\nrules=[{metric="map50",flor=0.5}]\n'
    )
    with pytest.raises(ConfigError, match="flor"):
        read_policies(path)


def test_a_candidate_without_the_champions_detector_is_refused() -> None:
    half = replace(report_of(240, right=0.97, seed=2), has_detector=False)
    decision = decide(half, CHAMPION, POLICY)
    assert not decision.passed
    assert "the champion has a detector, the candidate has none" in decision.reasons


def test_without_a_rule_that_applies_nothing_passes() -> None:
    assert not decide(report_of(240), CHAMPION, replace(POLICY, rules=(), slices=())).passed


def test_the_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(120):
        generator = np.random.default_rng(seed)
        groups = np.repeat(np.arange(60), 2)
        rates = generator.beta(4, 2, 60)
        right = generator.random(120) < rates[groups]
        weights = resample_weights(groups.astype(np.intp), 400, seed)
        low, high = np.percentile((weights * right).sum(axis=1) / weights.sum(axis=1), [2.5, 97.5])
        covered += bool(low <= 4 / 6 <= high)
    assert 0.89 <= covered / 120 <= 0.99
