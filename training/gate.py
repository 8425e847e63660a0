"""The gate: whether a candidate may replace the champion under a declared policy, and every reason at once."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.cases import CaseTable, Measure, Part, measures, resample_weights
from training.errors import ConfigError
from training.metrics import Array
from training.report import EvaluationReport

LATENCY = "ms_per_image"
_ANY_RECALL = "recall.*"
_SLICED = ("detection_sensitivity", "malignant_sensitivity")
_SHARED = frozenset(
    {"malignant_auc", "malignant_sensitivity", "malignant_specificity", "melanoma_sensitivity"}
    | {"served_malignant_sensitivity"}
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What one metric must show; see policies.toml for the meaning of each bound."""

    metric: str
    minimum_cases: int
    floor: float | None = None
    ceiling: float | None = None
    margin: float | None = None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """A declared set of rules, by name; `confidence` is that of the one-sided paired bootstrap.

    With `sign_off` a pass alone promotes nothing: a dermatologist must put a name to it.
    """

    name: str
    about: str
    minimum_images: int
    confidence: float
    resamples: int
    rules: tuple[Rule, ...]
    slices: tuple[str, ...] = ()
    slice_minimum_cases: int = 30
    slice_margin: float = 0.1
    sign_off: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One rule applied: passed or not, or `no_evidence` where too few cases of an optional rule decide nothing.

    `worst` is the bound of the difference to the champion (candidate less champion, turned so that more is better) at
    the policy's confidence.
    """

    metric: str
    part: Part
    passed: bool
    reason: str
    candidate: float = math.nan
    champion: float | None = None
    worst: float | None = None
    no_evidence: bool = False


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Whether the candidate passes, under which policy, against whom, all checks in order; and whether that is enough.

    `needs_sign_off` is true where the policy wants a dermatologist's name before promotion.
    """

    passed: bool
    policy: str
    candidate: str
    champion: str | None
    checks: tuple[Check, ...] = field(default=())
    needs_sign_off: bool = False

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every reason for a refusal; empty where the candidate passes."""
        return tuple(check.reason for check in self.checks if not check.passed)

    def passes(self, part: Part) -> bool:
        """Whether every check of one part passed."""
        return all(check.passed for check in self.checks if check.part is part)


def decide(candidate: EvaluationReport, champion: EvaluationReport | None, policy: Policy) -> GateDecision:
    """The decision on a candidate; without a champion only floors, ceilings and counts decide.

    Pure: both reports carry the cases that the paired bootstrap resamples.
    """
    checks = [_enough_images(candidate, policy)]
    if champion is not None:
        checks += _parts_kept(candidate, champion)
        checks.append(_same_test(candidate, champion))
        if not checks[-1].passed:
            champion = None
    rules = tuple(_expanded(policy, candidate))
    checks += [_check(rule, candidate, champion, policy) for rule in rules]
    if champion is not None:
        checks += _slice_checks(candidate, champion, policy)
    passed = bool(rules) and all(check.passed for check in checks)
    against = champion.bundle if champion else None
    return GateDecision(passed, policy.name, candidate.bundle, against, tuple(checks), policy.sign_off)


def read_policies(path: Path | None = None) -> Mapping[str, Policy]:
    """The policies of a TOML file by name, or those that ship with the package; raises ConfigError naming the key."""
    source = path or Path(__file__).with_name("policies.toml")
    try:
        raw = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(str(source), str(error), "a readable TOML file", "Fix or name another file.") from error
    return {name: _policy(name, table, str(source)) for name, table in raw.items()}


def read_policy(name: str, path: Path | None = None) -> Policy:
    """One policy by name; raises ConfigError where there is none."""
    known = read_policies(path)
    if name not in known:
        raise ConfigError("gate policy", name, f"one of {', '.join(known)}", "Name a declared policy.")
    return known[name]


def _policy(name: str, table: Mapping[str, Any], source: str) -> Policy:
    rules = tuple(_built(Rule, row, f"{source}, {name}, rules") for row in table.get("rules", ()))
    row = {**table, "name": name, "rules": rules, "slices": tuple(table.get("slices", ()))}
    policy: Policy = _built(Policy, row, f"{source}, {name}")
    if not rules or not 0.5 <= policy.confidence < 1:
        raise ConfigError(f"{source}, {name}", policy.confidence, "rules and 0.5 ≤ confidence < 1", "Complete it.")
    return policy


def _built(kind: Any, row: Mapping[str, Any], item: str) -> Any:
    names = {known.name for known in fields(kind)}
    if unknown := sorted(set(row) - names):
        raise ConfigError(item, unknown, f"keys out of {', '.join(sorted(names))}", "Correct the spelling.")
    try:
        return kind(**row)
    except TypeError as error:
        raise ConfigError(item, dict(row), str(error), "Add the missing keys.") from error


def _expanded(policy: Policy, candidate: EvaluationReport) -> Iterator[Rule]:
    for rule in policy.rules:
        if rule.metric == _ANY_RECALL:
            yield from (replace(rule, metric=f"recall.{name}") for name in candidate.classes)
        elif _part(rule.metric, candidate) is not None:
            yield rule


def _part(metric: str, report: EvaluationReport) -> Part | None:
    """The part a rule measures, or None where the bundle has no such part and the rule is void."""
    if metric == LATENCY:
        return Part.PIPELINE
    found = measures(report.classes).get(metric)
    part = found.part if found else Part.PIPELINE
    present = {
        Part.DETECTOR: report.has_detector,
        Part.CLASSIFIER: report.has_classifier,
        Part.PIPELINE: True,
    }
    return part if present[part] else None


def _enough_images(candidate: EvaluationReport, policy: Policy) -> Check:
    count = len(candidate.cases)
    text = f"{count} test images; {policy.name} asks for {policy.minimum_images} or more"
    return Check("images", Part.PIPELINE, count >= policy.minimum_images, text, count)


def _parts_kept(candidate: EvaluationReport, champion: EvaluationReport) -> Iterator[Check]:
    """A failed check for each part that the champion has and the candidate lacks: its rules would say nothing."""
    for part, here, there in (
        (Part.DETECTOR, candidate.has_detector, champion.has_detector),
        (Part.CLASSIFIER, candidate.has_classifier, champion.has_classifier),
    ):
        if there and not here:
            yield Check(part.value, part, False, f"the champion has a {part.value}, the candidate has none")


def _same_test(candidate: EvaluationReport, champion: EvaluationReport) -> Check:
    same = (
        candidate.split_digest == champion.split_digest
        and bool(candidate.split_digest)
        and [c.image_id for c in candidate.cases] == [c.image_id for c in champion.cases]
    )
    text = "measured on the champion's test set" if same else "test sets differ: evaluate both on the same version"
    return Check("test set", Part.PIPELINE, same, text)


def _check(rule: Rule, candidate: EvaluationReport, champion: EvaluationReport | None, policy: Policy) -> Check:
    if rule.metric == LATENCY:
        return _latency(rule, candidate)
    measure = measures(candidate.classes).get(rule.metric)
    if measure is None:
        return Check(rule.metric, Part.PIPELINE, False, f"{rule.metric}: no such metric in the report")
    table = candidate.table()
    return _measured(rule, measure, table, table.ones, champion.table() if champion else None, policy)


def _latency(rule: Rule, candidate: EvaluationReport) -> Check:
    value, limit = candidate.ms_per_image, rule.ceiling if rule.ceiling is not None else math.inf
    return Check(LATENCY, Part.PIPELINE, value <= limit, f"{LATENCY} {value:.0f}; at most {limit:.0f} passes", value)


def _measured(
    rule: Rule, measure: Measure, table: CaseTable, mask: Array, other: CaseTable | None, policy: Policy
) -> Check:
    cases = measure.cases(table)
    if cases < rule.minimum_cases:
        text = f"{rule.metric}: {cases} cases, no evidence under {rule.minimum_cases}"
        return Check(rule.metric, measure.part, rule.optional, text, no_evidence=True)
    value = measure.value(table, mask)
    bounds = _bounds(rule, value)
    comparable = other is not None and _comparable(rule.metric, table, other, measure)
    if not comparable or other is None or rule.margin is None:
        return Check(
            rule.metric, measure.part, all(ok for ok, _ in bounds), _sentence(rule.metric, value, bounds), value
        )
    worst = _worst_difference(measure, table, other, mask, policy)
    sure = f"{worst:+.3f} against the champion with {policy.confidence:.0%} confidence"
    bounds.append((worst >= -rule.margin, f"{sure}, at least {-rule.margin:+.3f} passes"))
    reason = _sentence(rule.metric, value, bounds)
    passed = all(ok for ok, _ in bounds)
    return Check(rule.metric, measure.part, passed, reason, value, measure.value(other, mask), worst)


def _bounds(rule: Rule, value: float) -> list[tuple[bool, str]]:
    bounds = [(math.isfinite(value), "a number passes")]
    if rule.floor is not None:
        bounds.append((value >= rule.floor, f"at least {rule.floor:.3f} passes"))
    if rule.ceiling is not None:
        bounds.append((value <= rule.ceiling, f"at most {rule.ceiling:.3f} passes"))
    return bounds


def _sentence(metric: str, value: float, bounds: list[tuple[bool, str]]) -> str:
    failed = [text for ok, text in bounds if not ok]
    return f"{metric} {value:.3f}: {'; '.join(failed or [text for _, text in bounds[1:]] or ['measured'])}"


def _comparable(metric: str, one: CaseTable, other: CaseTable, measure: Measure) -> bool:
    """Whether the other bundle can be measured so; two classifiers of different targets share only malignancy."""
    if measure.part is Part.DETECTOR:
        return True
    return measure.cases(other) > 0 and (one.classes == other.classes or metric in _SHARED)


def _worst_difference(measure: Measure, table: CaseTable, other: CaseTable, mask: Array, policy: Policy) -> float:
    """Lower bound of candidate less champion (more is better) over resampled patients; NaN where undefined."""
    sign = 1.0 if measure.higher_is_better else -1.0
    weights = resample_weights(table.groups, policy.resamples, seed=0) * mask
    gaps = np.array([sign * (measure.value(table, row) - measure.value(other, row)) for row in weights])
    gaps = gaps[~np.isnan(gaps)]
    if gaps.size < policy.resamples / 2:
        return math.nan
    return float(np.quantile(gaps, 1 - policy.confidence))


def _slice_checks(candidate: EvaluationReport, champion: EvaluationReport, policy: Policy) -> Iterator[Check]:
    table, other = candidate.table(), champion.table()
    pairs = sorted({pair for image in candidate.cases for pair in image.slices if pair[0] in policy.slices})
    for attribute, value in pairs:
        chosen = table.slice_weights(attribute, value) > 0
        part = CaseTable(tuple(i for i, own in zip(table.images, chosen, strict=True) if own), table.classes)
        peer = CaseTable(tuple(i for i, own in zip(other.images, chosen, strict=True) if own), other.classes)
        for metric in _SLICED:
            if _part(metric, candidate) is None:
                continue
            rule = Rule(metric, policy.slice_minimum_cases, margin=policy.slice_margin, optional=True)
            check = _measured(rule, measures(table.classes)[metric], part, part.ones, peer, policy)
            place = f"{attribute} {value}: "
            yield replace(check, metric=f"{metric}[{attribute}={value}]", reason=place + check.reason)
