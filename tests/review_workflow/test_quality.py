"""Readers against the approved truth, and the share of wrong suggestions that they let pass."""

from __future__ import annotations

from dataclasses import replace

from builders_review import (
    ANNA,
    BEN,
    NO_SECOND_READER,
    QA,
    TECHNICIAN,
    TWO_READERS,
    a_lesion,
    a_setting,
    a_submission,
    current_key,
)

from converters.annotation import Annotation, Finding, Origin
from converters.label_studio.controls import Tier, Verdict
from review_workflow.decisions import Setting, apply, is_blind, register, shown
from review_workflow.effort import WITHOUT, ModelEffort, effort
from review_workflow.policy import Quality
from review_workflow.quality import judge
from review_workflow.review import Answer, Review, WorkKey

TWO = a_setting(TWO_READERS)


def decided(image: str, first: str, anna: str, ben: str, truth: str, setting: Setting = TWO) -> Review:
    """An image that the technician, two dermatologists and QA called by these diagnoses."""
    review = register(image).review
    review = apply(
        review, a_submission(current_key(review, Tier.TECHNICIAN), TECHNICIAN, [a_lesion(first)]), setting
    ).review
    for person, diagnosis in ((ANNA, anna), (BEN, ben)):
        key = next(work.key for work in review.current(Tier.DERMATOLOGIST) if work.assignee == person.email)
        review = apply(review, a_submission(key, person, [a_lesion(diagnosis)], Verdict.ACCEPT), setting).review
    key = current_key(review, Tier.QA)
    return apply(review, a_submission(key, QA, [a_lesion(truth)], Verdict.APPROVE), setting).review


def test_a_reader_who_accepts_what_is_wrong_has_a_rubber_stamp() -> None:
    reviews = [decided(f"{n}", first="nv", anna="nv", ben="mel", truth="mel") for n in range(3)]
    reviews.append(decided("3", first="mel", anna="mel", ben="mel", truth="mel"))
    found = {row.author: row for row in judge(reviews, TWO)}
    assert (found[ANNA.email].wrong_suggestions, found[ANNA.email].rubber_stamp) == (3, 1.0)
    assert (found[BEN.email].wrong_suggestions, found[BEN.email].rubber_stamp) == (3, 0.0)
    assert (found[ANNA.email].malignant, found[ANNA.email].missed_malignant) == (4, 3)
    assert (found[BEN.email].same_share, found[BEN.email].box_f1) == (1.0, 1.0)
    assert found[TECHNICIAN.email].rubber_stamp is None


def test_undecided_images_judge_nobody() -> None:
    assert judge([register("1").review], TWO) == ()


def test_a_blind_reader_starts_from_nothing() -> None:
    blind = a_setting(replace(NO_SECOND_READER, quality=Quality(share_blind=1.0)))
    review = register("1").review
    review = apply(review, a_submission(current_key(review, Tier.TECHNICIAN), TECHNICIAN), blind).review
    key = current_key(review, Tier.DERMATOLOGIST)
    assert shown(review, key, blind) is None
    assert shown(review, key, a_setting()) is not None


def test_the_blind_arm_says_how_often_a_mistake_is_made_without_seeing_it() -> None:
    blind = replace(TWO, policy=replace(TWO_READERS, quality=Quality(share_blind=1.0)))
    reviews = [decided(f"{n}", first="nv", anna="nv", ben="mel", truth="mel", setting=TWO) for n in range(4)]
    reviews += [decided(f"{n}", first="nv", anna="nv", ben="mel", truth="mel", setting=blind) for n in range(4, 7)]
    found = {row.author: row for row in judge(reviews, TWO)}
    assert (found[ANNA.email].rubber_stamp, found[ANNA.email].blind_stamp) == (1.0, 1.0)
    assert (found[BEN.email].rubber_stamp, found[BEN.email].blind_stamp) == (0.0, 0.0)
    assert (found[ANNA.email].wrong_suggestions, found[ANNA.email].blind_wrong, found[ANNA.email].blind) == (4, 3, 3)


def an_answer(seconds: float, model: str | None, origin: Origin, changed: bool = False) -> Review:
    annotation = Annotation(
        "1", Finding.LESIONS, (replace(a_lesion(), origin=origin),), author="t", model_version=model, lead_time=seconds
    )
    return Review("1", answers=(Answer(WorkKey("1", Tier.TECHNICIAN, 1, 1), annotation, changed=changed),))


def test_effort_is_told_by_model_version_with_the_answers_that_had_none_last() -> None:
    reviews = [
        an_answer(10, "new", Origin.PREDICTION),
        an_answer(30, "new", Origin.PREDICTION_CHANGED, changed=True),
        an_answer(50, None, Origin.MANUAL, changed=True),
    ]
    again = replace(reviews[2].answers[0], key=WorkKey("1", Tier.TECHNICIAN, 2, 1))
    assert effort([*reviews, Review("2", answers=(again,))]) == (
        ModelEffort("new", 2, changed_share=0.5, kept=1, moved=1, drawn=0, seconds=20),
        ModelEffort(WITHOUT, 1, changed_share=1.0, kept=0, moved=0, drawn=1, seconds=50),
    )


def test_the_blind_share_is_drawn_for_each_reader() -> None:
    policy = replace(NO_SECOND_READER, quality=Quality(share_blind=0.3))
    keys = [WorkKey(f"{n}", Tier.DERMATOLOGIST, 1, 1) for n in range(1000)]
    assert 0.25 < sum(is_blind(key, policy) for key in keys) / 1000 < 0.35
    assert not is_blind(WorkKey("1", Tier.QA, 1, 1), replace(policy, quality=Quality(share_blind=1.0)))
    both = replace(policy, quality=Quality(share_blind=0.5))
    first, second = ([is_blind(replace(key, tier=tier), both) for key in keys] for tier in (Tier(1), Tier(2)))
    assert 0.4 < sum(one == other for one, other in zip(first, second, strict=True)) / 1000 < 0.6
    dermatologists = replace(policy, quality=Quality(share_blind=1.0, blind_tiers=(2,)))
    assert not is_blind(WorkKey("1", Tier.TECHNICIAN, 1, 1), dermatologists)
    assert not is_blind(WorkKey("1", Tier.TECHNICIAN, 2, 1), replace(policy, quality=Quality(share_blind=1.0)))
