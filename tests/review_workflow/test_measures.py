"""Agreement and consensus against published worked examples and independent implementations."""

from __future__ import annotations

import math

import krippendorff
import numpy as np
import pytest
import SimpleITK
from builders_review import a_lesion
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, f1_score

from converters.annotation import Annotation, Finding
from converters.geometry import RleMask
from review_workflow import consensus
from review_workflow.measures import (
    BoxAgreement,
    Scale,
    box_agreement,
    cohen_kappa,
    dice,
    fleiss_kappa,
    krippendorff_alpha,
    with_interval,
)

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section D: four observers, twelve units.
NAN = math.nan
FOUR_OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
# The worked example of the Wikipedia article on Fleiss' kappa: ten units, fourteen readers, five labels.
FOURTEEN_READERS = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)
# Dawid and Skene (1979), table 1: 45 patients' fitness, by observer 1 three times and by observers 2 to 5 once each.
ANAESTHETISTS = """
    1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343
    1111111 2223212 1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222
    1111111 1111111 2322222 1111111 1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343
    2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
"""
LABELS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=40)


def a_reading(*lefts: float, author: str = "anna", diagnosis: str = "nv") -> Annotation:
    return Annotation("i", Finding.LESIONS, tuple(a_lesion(diagnosis, left) for left in lefts), author=author)


@pytest.mark.parametrize(
    ("scale", "published"), [(Scale.NOMINAL, 0.743), (Scale.ORDINAL, 0.815), (Scale.INTERVAL, 0.849)]
)
def test_alpha_is_the_published_one(scale: Scale, published: float) -> None:
    assert krippendorff_alpha(FOUR_OBSERVERS, scale) == pytest.approx(published, abs=5e-4)


def test_fleiss_kappa_is_the_published_one() -> None:
    assert fleiss_kappa(FOURTEEN_READERS) == pytest.approx(0.210, abs=5e-4)


@given(LABELS)
def test_cohens_kappa_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    one, other = zip(*pairs, strict=True)
    ours = cohen_kappa(one, other)
    if not math.isnan(ours):
        assert ours == pytest.approx(cohen_kappa_score(one, other))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(Scale))
def test_alpha_is_that_of_the_reference_implementation(seed: int, scale: Scale) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 4, (3, 15)).astype(float)
    values[generator.random(values.shape) < 0.2] = NAN
    theirs = krippendorff.alpha(reliability_data=values, level_of_measurement=scale.value)
    assert krippendorff_alpha(values, scale) == pytest.approx(theirs, abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_fleiss_kappa_is_what_the_reference_alpha_leaves_of_it(seed: int, readers: int) -> None:
    """Alpha expects agreement without replacement, kappa with it; else they are one."""
    values = np.random.default_rng(seed).integers(0, 3, (readers, 12))
    alpha = krippendorff.alpha(reliability_data=values, level_of_measurement="nominal", value_domain=[0, 1, 2])
    counts = np.stack([(values == label).sum(axis=0) for label in range(3)], axis=1)
    assert 1 - alpha == pytest.approx((1 - fleiss_kappa(counts)) * (values.size - 1) / values.size)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_dice_is_scikit_learns_f1_of_the_pixels(seed: int) -> None:
    one, other = np.random.default_rng(seed).random((2, 12, 9)) < 0.4
    assert dice(RleMask.from_array(one), RleMask.from_array(other)) == pytest.approx(
        f1_score(one.ravel(), other.ravel())
    )


def test_alpha_of_readers_who_never_differ_by_label_is_undefined() -> None:
    assert math.isnan(krippendorff_alpha(np.ones((2, 5))))


def test_an_interval_surrounds_its_value_and_is_always_the_same() -> None:
    once = with_interval(krippendorff_alpha, FOUR_OBSERVERS, 200)
    assert once.low < once.value < once.high
    assert with_interval(krippendorff_alpha, FOUR_OBSERVERS, 200) == once


def test_boxes_are_matched_to_the_best_partner_once() -> None:
    assert box_agreement(a_reading(10, 12), a_reading(11), 0.5) == BoxAgreement(2 / 3, pytest.approx(49 / 51), 1)
    assert box_agreement(a_reading(10), a_reading(100), 0.5) == BoxAgreement(0.0, 0.0, 0)
    assert box_agreement(a_reading(), a_reading(), 0.5) == BoxAgreement(1.0, 1.0, 0)


def test_dice_of_half_covered_masks() -> None:
    left, all_ = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    left[:, :2] = True
    assert dice(RleMask.from_array(left), RleMask.from_array(all_)) == pytest.approx(2 * 8 / 24)
    empty = RleMask.from_array(np.zeros((4, 4), bool))
    assert dice(empty, empty) == 1.0


def test_dawid_and_skenes_anaesthetists_are_the_published_ones() -> None:
    said = [
        [("1" if place < 3 else f"{place - 1}", int(digit) - 1) for place, digit in enumerate(patient)]
        for patient in ANAESTHETISTS.split()
    ]
    estimate = consensus.dawid_skene(said, list("12345"), 4)
    assert estimate.prevalence.round(2).tolist() == [0.40, 0.42, 0.11, 0.07]


def test_dawid_and_skene_trust_the_better_readers() -> None:
    generator = np.random.default_rng(7)
    truth = generator.integers(0, 3, 300)
    skill = {"good": 0.95, "fair": 0.8, "poor": 0.4, "random": 1 / 3}
    said = [
        {r: int(t) if generator.random() < p else int(generator.integers(0, 3)) for r, p in skill.items()}
        for t in truth
    ]
    estimate = consensus.dawid_skene([row.items() for row in said], list(skill), 3)
    majority = [max(range(3), key=lambda label: sum(v == label for v in row.values())) for row in said]
    right = (estimate.posterior.argmax(axis=1) == truth).mean()
    assert right > np.mean(np.array(majority) == truth)
    diagonal = [float(np.diag(matrix).mean()) for matrix in estimate.confusion]
    assert diagonal == sorted(diagonal, reverse=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 5))
def test_staple_is_simpleitks(seed: int, readers: int) -> None:
    generator = np.random.default_rng(seed)
    truth = np.zeros((24, 32), bool)
    truth[6:18, 8:24] = True
    masks = [truth ^ (generator.random(truth.shape) < noise) for noise in generator.uniform(0.02, 0.2, readers)]
    theirs = SimpleITK.GetArrayFromImage(
        SimpleITK.STAPLE([SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in masks], 1.0)
    )
    assert np.abs(consensus.staple(masks).probability - theirs).max() < 0.01
