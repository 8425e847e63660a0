"""What a command does to a review: the tiers, who may speak, and what agreement leads to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from builders_review import (
    ANNA,
    BEN,
    ENGINEER,
    NO_SECOND_READER,
    QA,
    SECOND_TECHNICIAN,
    TAXONOMY,
    TECHNICIAN,
    TWO_READERS,
    a_lesion,
    a_setting,
    a_submission,
    current_key,
)

from converters.annotation import Finding, TruthLevel
from converters.label_studio.controls import Tier, Verdict
from review_workflow.decisions import Setting, apply, register
from review_workflow.people import Person, Roster
from review_workflow.policy import Assignment, Expertise, Policy, QualityAssurance
from review_workflow.review import Reassign, Review, SendBack, Withdraw, WorkKey, WorkStatus
from review_workflow.states import ReviewState

IMAGE = "a" * 64
ONE = a_setting()
TWO = a_setting(TWO_READERS)


def labelled(setting: Setting = ONE, diagnosis: str = "nv") -> Review:
    review = register(IMAGE).review
    key = current_key(review, Tier.TECHNICIAN)
    return apply(review, a_submission(key, TECHNICIAN, [a_lesion(diagnosis)]), setting).review


def read(
    review: Review, person: Person, verdict: Verdict, setting: Setting, diagnosis: str = "nv", **more: str
) -> Review:
    key = next(w.key for w in review.current(Tier.DERMATOLOGIST) if w.assignee == person.email)
    decision = apply(review, a_submission(key, person, [a_lesion(diagnosis)], verdict, **more), setting)
    assert decision.refusal == ""
    return decision.review


def refusal(review: Review, key: WorkKey, person: Person | None, setting: Setting = ONE, **more: object) -> str:
    decision = apply(review, a_submission(key, person, **more), setting)  # type: ignore[arg-type]
    assert replace(decision.review, works=review.works) == review
    assert [event.happened for event in decision.events] == ["refused"]
    return decision.refusal


def test_a_technicians_answer_opens_one_reading() -> None:
    review = labelled()
    assert review.state is ReviewState.LABELLED
    assert [(work.assignee, work.status) for work in review.current(Tier.DERMATOLOGIST)] == [
        (ANNA.email, WorkStatus.WAITING)
    ]


def test_one_accepted_reading_is_approved_by_policy_at_the_dermatologists_level() -> None:
    review = read(labelled(), ANNA, Verdict.ACCEPT, ONE)
    assert review.state is ReviewState.APPROVED
    assert review.truth is not None
    assert (review.truth.level, review.truth.author) == (TruthLevel.DERMATOLOGIST, ANNA.email)


def test_two_agreeing_readers_make_a_consensus() -> None:
    once = read(labelled(TWO), ANNA, Verdict.ACCEPT, TWO)
    assert once.state is ReviewState.IN_REVIEW
    twice = read(once, BEN, Verdict.ACCEPT, TWO)
    assert twice.state is ReviewState.APPROVED
    assert twice.truth is not None and twice.truth.level is TruthLevel.CONSENSUS


def test_two_readers_who_differ_leave_the_decision_to_qa() -> None:
    review = read(read(labelled(TWO), ANNA, Verdict.ACCEPT, TWO), BEN, Verdict.CORRECT, TWO, diagnosis="bkl")
    assert review.state is ReviewState.DISPUTED
    decided = apply(
        review, a_submission(current_key(review, Tier.QA), QA, [a_lesion("bkl")], Verdict.CORRECT), TWO
    ).review
    assert decided.state is ReviewState.APPROVED
    assert decided.truth is not None and decided.truth.level is TruthLevel.QA


def test_what_readers_disagreed_on_stays_in_the_truth_as_a_soft_label() -> None:
    review = read(read(labelled(TWO), ANNA, Verdict.ACCEPT, TWO), BEN, Verdict.CORRECT, TWO, diagnosis="mel")
    command = a_submission(current_key(review, Tier.QA), QA, [a_lesion("mel")], Verdict.CORRECT)
    truth = apply(review, command, TWO).review.truth
    assert truth is not None
    (lesion,) = truth.lesions
    assert lesion.diagnosis == "mel"
    assert lesion.probabilities == (("mel", pytest.approx(2 / 3)), ("nv", pytest.approx(1 / 3)))


@pytest.mark.parametrize("diagnosis", ["mel", "bcc", "akiec"])
def test_a_malignant_finding_always_reaches_qa(diagnosis: str) -> None:
    review = read(labelled(diagnosis=diagnosis), ANNA, Verdict.ACCEPT, ONE, diagnosis=diagnosis)
    assert review.state is ReviewState.AGREED
    assert len(review.current(Tier.QA)) == 1


def test_a_malignancy_that_only_the_technician_saw_reaches_qa_too() -> None:
    review = read(labelled(diagnosis="mel"), ANNA, Verdict.CORRECT, ONE, diagnosis="nv")
    assert review.state is ReviewState.AGREED


def test_a_sampled_agreement_goes_to_qa() -> None:
    sampling = a_setting(replace(NO_SECOND_READER, qa=QualityAssurance(share_of_agreed=1.0)))
    assert read(labelled(sampling), ANNA, Verdict.ACCEPT, sampling).state is ReviewState.AGREED


def test_an_escalated_reading_goes_to_qa() -> None:
    assert read(labelled(), ANNA, Verdict.ESCALATE, ONE).state is ReviewState.AGREED


def test_an_accept_with_other_labels_counts_as_a_correction() -> None:
    review = read(labelled(), ANNA, Verdict.ACCEPT, ONE, diagnosis="bkl")
    answer = review.readings(Tier.DERMATOLOGIST)[0]
    assert (answer.verdict, answer.changed) == (Verdict.CORRECT, True)


def test_a_send_back_opens_the_next_round_for_the_same_technician_with_the_reason() -> None:
    review = read(labelled(), ANNA, Verdict.SEND_BACK, ONE, reason="Tighter, please.")
    (work,) = review.current(Tier.TECHNICIAN)
    assert review.state is ReviewState.SENT_BACK
    assert (work.key.round, work.assignee) == (2, TECHNICIAN.email)
    assert work.reason == "anna@example.org (dermatologist): Tighter, please."
    again = apply(review, a_submission(work.key, TECHNICIAN), ONE).review
    assert [(w.key.round, w.assignee) for w in again.current(Tier.DERMATOLOGIST)] == [(2, ANNA.email)]


def test_a_send_back_cancels_the_other_readers_work() -> None:
    review = read(labelled(TWO), ANNA, Verdict.SEND_BACK, TWO, reason="Blurred.")
    waiting = {work.key.tier for work in review.works if work.status is WorkStatus.WAITING}
    assert waiting == {Tier.TECHNICIAN}


def test_qa_can_exclude_with_a_reason() -> None:
    review = read(labelled(diagnosis="mel"), ANNA, Verdict.ACCEPT, ONE, diagnosis="mel")
    command = a_submission(current_key(review, Tier.QA), QA, verdict=Verdict.EXCLUDE, reason="Not skin.")
    assert apply(review, command, ONE).review.state is ReviewState.EXCLUDED


def test_nobody_without_the_role_moves_anything() -> None:
    review = labelled()
    key = current_key(review, Tier.DERMATOLOGIST)
    for person in (None, TECHNICIAN, QA, ENGINEER):
        assert refusal(review, key, person, verdict=Verdict.ACCEPT)


def test_only_the_assigned_reader_counts() -> None:
    review = labelled()
    key = current_key(review, Tier.DERMATOLOGIST)
    assert "assigned to another reader" in refusal(review, key, BEN, verdict=Verdict.ACCEPT)


def test_nobody_reviews_their_own_work() -> None:
    promoted = replace(TECHNICIAN, role=ANNA.role)
    setting = a_setting(people=[promoted])
    review = labelled(setting)
    assert [work.assignee for work in review.current(Tier.DERMATOLOGIST)] == [None]
    key = current_key(review, Tier.DERMATOLOGIST)
    assert "already answered" in refusal(review, key, promoted, setting, verdict=Verdict.ACCEPT)


def test_nobody_is_both_readers_of_an_image() -> None:
    setting = a_setting(TWO_READERS, [TECHNICIAN])
    review = labelled(setting)
    review = review.with_work(*(replace(w, assignee=None) for w in review.current(Tier.DERMATOLOGIST)))
    second = replace(review.current(Tier.DERMATOLOGIST)[0], key=WorkKey(IMAGE, Tier.DERMATOLOGIST, 1, 2))
    review = review.with_work(second)
    once = apply(review, a_submission(second.key, ANNA, verdict=Verdict.ACCEPT), setting).review
    first = current_key(once, Tier.DERMATOLOGIST)
    assert "already answered" in refusal(once, first, ANNA, setting, verdict=Verdict.ACCEPT)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"verdict": None}, "Choose a verdict"),
        ({"verdict": Verdict.SEND_BACK}, "needs a reason"),
        ({"verdict": Verdict.APPROVE}, "Choose a verdict"),
        ({"verdict": Verdict.ACCEPT, "lesions": (), "finding": Finding.NOT_LOOKED_AT}, "Outline the lesions"),
    ],
)
def test_an_incomplete_answer_moves_nothing_and_its_author_is_told(more: dict[str, object], told: str) -> None:
    review = labelled()
    key = current_key(review, Tier.DERMATOLOGIST)
    assert told in refusal(review, key, ANNA, **more)
    decision = apply(review, a_submission(key, ANNA, **more), ONE)  # type: ignore[arg-type]
    assert told in decision.review.current(Tier.DERMATOLOGIST)[0].told


def test_the_complaint_is_gone_once_the_answer_counts() -> None:
    review = labelled()
    key = current_key(review, Tier.DERMATOLOGIST)
    complained = apply(review, a_submission(key, ANNA), ONE).review
    done = apply(complained, a_submission(key, ANNA, verdict=Verdict.ACCEPT), ONE).review
    assert done.work(key).told == ""  # type: ignore[union-attr]


def test_the_same_answer_twice_is_one_answer() -> None:
    review = labelled()
    command = a_submission(current_key(review, Tier.DERMATOLOGIST), ANNA, verdict=Verdict.ACCEPT)
    once = apply(review, command, ONE).review
    assert apply(once, command, ONE).review == once
    assert apply(once, command, ONE).events == ()


def test_a_second_technicians_answer_on_the_same_task_changes_nothing() -> None:
    review = labelled()
    key = current_key(review, Tier.TECHNICIAN)
    assert "answered by somebody else" in refusal(review, key, SECOND_TECHNICIAN, lesions=[a_lesion("mel")])


def test_a_technicians_edit_before_any_reading_replaces_the_answer_and_opens_a_new_reading() -> None:
    review = labelled()
    key = current_key(review, Tier.TECHNICIAN)
    edited = apply(review, a_submission(key, TECHNICIAN, [a_lesion("bkl")]), ONE).review
    assert edited.readings(Tier.TECHNICIAN)[0].annotation.lesions[0].diagnosis == "bkl"
    assert [work.key.round for work in edited.current(Tier.DERMATOLOGIST)] == [2]


def test_a_technicians_edit_during_the_reading_comes_too_late() -> None:
    review = read(labelled(TWO), ANNA, Verdict.ACCEPT, TWO)
    key = current_key(review, Tier.TECHNICIAN)
    assert "too late" in refusal(review, key, TECHNICIAN, TWO, lesions=[a_lesion("bkl")])


def test_an_edit_after_approval_opens_a_revision_that_qa_sees() -> None:
    review = read(labelled(), ANNA, Verdict.ACCEPT, ONE)
    key = current_key(review, Tier.DERMATOLOGIST)
    command = a_submission(key, ANNA, [a_lesion("bkl")], Verdict.CORRECT)
    decision = apply(review, command, ONE)
    assert (decision.review.state, decision.review.revision) == (ReviewState.AGREED, 2)
    assert [str(event.happened) for event in decision.events] == ["reopened", "read", "agreed"]
    assert decision.review.truth is None


def test_a_technicians_edit_after_approval_has_to_be_read_anew() -> None:
    review = read(labelled(), ANNA, Verdict.ACCEPT, ONE)
    edited = apply(
        review, a_submission(current_key(review, Tier.TECHNICIAN), TECHNICIAN, [a_lesion("bkl")]), ONE
    ).review
    assert (edited.state, edited.revision, edited.truth) == (ReviewState.LABELLED, 2, None)


def test_qa_sends_back_to_the_dermatologists_by_order() -> None:
    review = read(read(labelled(TWO), ANNA, Verdict.ACCEPT, TWO), BEN, Verdict.CORRECT, TWO, diagnosis="bkl")
    back = apply(review, SendBack(QA, Tier.DERMATOLOGIST, "Look at the network."), TWO).review
    assert back.state is ReviewState.LABELLED
    assert [(w.key.round, w.assignee) for w in back.current(Tier.DERMATOLOGIST)] == [(2, ANNA.email), (2, BEN.email)]
    assert all("Look at the network." in work.reason for work in back.current(Tier.DERMATOLOGIST))


def test_an_approved_image_can_be_ordered_back_and_is_approved_no_longer() -> None:
    review = read(labelled(), ANNA, Verdict.ACCEPT, ONE)
    back = apply(review, SendBack(QA, Tier.TECHNICIAN, "Wrong lesion."), ONE).review
    assert (back.state, back.revision, back.truth) == (ReviewState.SENT_BACK, 2, None)


def test_a_technician_may_not_order_anything_back() -> None:
    decision = apply(labelled(), SendBack(TECHNICIAN, Tier.TECHNICIAN, "Mine."), ONE)
    assert "may not send" in decision.refusal


def test_waiting_work_can_be_given_to_somebody_else_but_not_to_its_lower_tiers_author() -> None:
    review = labelled()
    key = current_key(review, Tier.DERMATOLOGIST)
    moved = apply(review, Reassign(QA, key, BEN.email), ONE).review
    assert moved.work(key).assignee == BEN.email  # type: ignore[union-attr]
    assert apply(review, Reassign(QA, key, TECHNICIAN.email), ONE).refusal
    assert apply(review, Reassign(ANNA, key, BEN.email), ONE).refusal


def test_withdrawal_ends_everything() -> None:
    review = read(labelled(), ANNA, Verdict.ACCEPT, ONE)
    ended = apply(review, Withdraw(QA, "asked for"), ONE).review
    assert (ended.state, ended.truth) == (ReviewState.WITHDRAWN, None)
    key = current_key(ended, Tier.DERMATOLOGIST)
    assert "withdrawn" in refusal(ended, key, ANNA, lesions=[a_lesion("mel")], verdict=Verdict.CORRECT)


CHEST = Person("chest@example.org", ANNA.role, 8, expertise=("Chest",))
EXPERT = Person("zoe@example.org", ANNA.role, 7, expertise=("nv",))


def first_reader(policy: Policy, people: Sequence[Person], site: str | None = "chest", load: int = 0) -> str | None:
    """Who gets a technician's nevus to read, where every reader with expertise has so much waiting."""
    busy = tuple((person.email, load) for person in people if person.expertise)
    setting = Setting(policy, TAXONOMY, Roster((TECHNICIAN, *people), busy))
    review = register(IMAGE).review
    command = replace(a_submission(current_key(review, Tier.TECHNICIAN), TECHNICIAN), site=site)
    return apply(review, command, setting).review.current(Tier.DERMATOLOGIST)[0].assignee


def test_an_image_goes_to_whoever_knows_its_site_or_its_diagnosis_however_busy_they_are() -> None:
    assert first_reader(NO_SECOND_READER, [ANNA, CHEST], load=9) == CHEST.email
    assert first_reader(NO_SECOND_READER, [ANNA, EXPERT], load=9) == EXPERT.email
    assert first_reader(NO_SECOND_READER, [ANNA, CHEST], site=None) == ANNA.email


def test_what_counts_as_expertise_is_the_policys() -> None:
    by_site = replace(NO_SECOND_READER, assignment=Assignment(expertise=(Expertise.SITE,)))
    by_load = replace(NO_SECOND_READER, assignment=Assignment(expertise=()))
    assert first_reader(by_site, [ANNA, CHEST, EXPERT]) == CHEST.email
    assert first_reader(by_load, [ANNA, CHEST, EXPERT], load=1) == ANNA.email


def test_readers_with_the_right_expertise_and_the_least_work_come_first() -> None:
    away = replace(ANNA, active=False)
    review = labelled(a_setting(TWO_READERS, [away, BEN, EXPERT, TECHNICIAN]))
    assert [work.assignee for work in review.current(Tier.DERMATOLOGIST)] == [EXPERT.email, BEN.email]
