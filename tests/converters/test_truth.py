"""One truth for each image: by declared precedence, or a refusal that says why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders_converters import a_lesion, an_answer
from hypothesis import given
from hypothesis import strategies as st

from converters import truth
from converters.annotation import Annotation, Finding, TruthLevel
from converters.errors import AmbiguousTruthError
from converters.geometry import PixelBox
from converters.truth import TruthPolicy

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ANYBODY = TruthPolicy(minimum=TruthLevel.MODEL)


def said(diagnosis: str, author: str, level: TruthLevel = TruthLevel.QA, **facts: Any) -> Annotation:
    return an_answer(a_lesion(diagnosis), author=author, level=level, **{"created_at": NOON, **facts})


def test_the_highest_level_wins_whatever_came_last() -> None:
    answers = [
        said("mel", "dora", TruthLevel.DERMATOLOGIST),
        said("nv", "tim", TruthLevel.TECHNICIAN, created_at=NOON + timedelta(days=1)),
        said("bcc", "m-1", TruthLevel.MODEL),
    ]
    assert truth.resolve("i", answers, ANYBODY) == answers[0]


def test_histopathology_overrules_a_consensus() -> None:
    answers = [said("nv", "panel", TruthLevel.CONSENSUS), said("mel", "lab", TruthLevel.HISTOPATHOLOGY)]
    found = truth.resolve("i", answers, ANYBODY)
    assert found is not None and found.author == "lab"


def test_of_one_author_the_newest_answer_counts() -> None:
    old, new = said("nv", "dora"), said("mel", "dora", created_at=NOON + timedelta(seconds=1))
    assert truth.resolve("i", [new, old], ANYBODY) == new


def test_two_readers_of_equal_standing_who_disagree_are_refused_by_name() -> None:
    with pytest.raises(AmbiguousTruthError, match=r"\['anna', 'bert'\].*Adjudicate"):
        truth.resolve("i", [said("nv", "bert"), said("mel", "anna")], ANYBODY)


def test_answers_without_an_author_are_not_taken_for_one_persons() -> None:
    with pytest.raises(AmbiguousTruthError):
        truth.resolve("i", [said("nv", ""), said("mel", "", created_at=NOON + timedelta(days=1))], ANYBODY)


def test_one_authors_contradiction_at_the_same_moment_is_refused() -> None:
    with pytest.raises(AmbiguousTruthError):
        truth.resolve("i", [said("nv", "anna"), said("mel", "anna")], ANYBODY)


def test_drafts_predictions_below_the_minimum_and_unlooked_images_are_no_truth() -> None:
    answers = [
        said("mel", "anna", draft=True),
        said("mel", "tim", TruthLevel.TECHNICIAN),
        an_answer(author="qa", finding=Finding.NOT_LOOKED_AT),
    ]
    assert truth.resolve("i", answers, TruthPolicy()) is None


def test_the_three_negatives_do_not_agree_with_one_another() -> None:
    free, ungradable = an_answer(), an_answer(finding=Finding.UNGRADABLE)
    assert truth.agree(free, free, 0.5) and not truth.agree(free, ungradable, 0.5)


def test_readings_agree_in_any_order_of_lesions_and_only_with_enough_overlap() -> None:
    left, right = PixelBox(0, 0, 10, 10), PixelBox(50, 0, 60, 10)
    one = an_answer(a_lesion("nv", left), a_lesion("mel", right))
    other = an_answer(a_lesion("mel", right), a_lesion("nv", PixelBox(2, 0, 12, 10)))
    assert truth.agree(one, other, 0.5) and not truth.agree(one, other, 0.7)


def test_resolving_all_reports_truths_gaps_and_conflicts() -> None:
    answers = [
        said("nv", "anna", image_id="agreed"),
        said("nv", "bert", image_id="agreed"),
        said("nv", "anna", image_id="split"),
        said("mel", "bert", image_id="split"),
        said("nv", "tim", TruthLevel.TECHNICIAN, image_id="early"),
    ]
    found = truth.resolve_all(answers, TruthPolicy())
    assert [t.image_id for t in found.truths] == ["agreed"]
    assert found.without_truth == ("early",)
    assert [error.item for error in found.ambiguous] == ["image split"]


ANSWERS = st.builds(
    said,
    st.sampled_from(["nv", "mel"]),
    st.sampled_from(["", "anna", "bert"]),
    st.sampled_from(list(TruthLevel)),
    annotation_id=st.sampled_from(["1", "2", ""]),
    created_at=st.sampled_from([None, NOON, NOON.replace(tzinfo=None), NOON + timedelta(days=1)]),
)


@given(st.lists(ANSWERS, max_size=6), st.randoms())
def test_the_order_of_the_list_never_matters(answers: list[Annotation], random: Any) -> None:
    shuffled = list(answers)
    random.shuffle(shuffled)
    assert outcome(answers) == outcome(shuffled)


def outcome(answers: list[Annotation]) -> object:
    try:
        return truth.resolve("i", answers, ANYBODY)
    except AmbiguousTruthError:
        return "ambiguous"
