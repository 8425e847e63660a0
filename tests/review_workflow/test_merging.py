"""Several readings under the policy: one consensus by votes or by reliability, masks by STAPLE, or a dispute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_review import (
    ANNA,
    BEN,
    CLARA,
    NO_SECOND_READER,
    QA,
    SIZE,
    TAXONOMY,
    TECHNICIAN,
    MemoryLabelStudio,
    Ticking,
    a_lesion,
    a_result,
    a_service,
    a_setting,
    a_store,
    a_submission,
    an_image,
    current_key,
)

from converters.annotation import Annotation, Finding, Lesion, TruthLevel
from converters.geometry import PixelBox, RleMask
from converters.label_studio.controls import Tier, Verdict
from review_workflow import reliability
from review_workflow.consensus import merge_masks
from review_workflow.decisions import Setting, apply, register, shown
from review_workflow.merging import settle
from review_workflow.policy import Agreement, MaskMerge, Merge, Policy, Readers, Vote
from review_workflow.reliability import ReaderReliability
from review_workflow.review import Review
from review_workflow.states import ReviewState

READERS = (ANNA, BEN, CLARA)
THREE = replace(NO_SECOND_READER, readers=Readers(1.0, False, together=3), agreement=Agreement(diagnosis=0.6))
WEIGHED = replace(THREE, merge=Merge(diagnosis=Vote.DAWID_SKENE, after_lesions=20))


def a_reading(*lesions: Lesion, author: str = "anna", finding: Finding = Finding.LESIONS) -> Annotation:
    return Annotation("i", finding, lesions, author=author)


def three(*diagnoses: str) -> list[Annotation]:
    return [a_reading(a_lesion(d), author=p.email) for d, p in zip(diagnoses, READERS, strict=True)]


def read_by_three(image: str, diagnoses: Sequence[str], setting: Setting) -> Review:
    """An image that the technician called a nevus and three dermatologists called by these diagnoses."""
    review = register(image).review
    review = apply(review, a_submission(current_key(review, Tier.TECHNICIAN), TECHNICIAN), setting).review
    for person, diagnosis in zip(READERS, diagnoses, strict=True):
        key = next(work.key for work in review.current(Tier.DERMATOLOGIST) if work.assignee == person.email)
        review = apply(review, a_submission(key, person, [a_lesion(diagnosis)], Verdict.ACCEPT), setting).review
    return review


def experience() -> ReaderReliability:
    """Sixty lesions: Anna is right, Ben and Clara each call another quarter of the melanomas a nevus."""
    policy = a_setting(THREE, (TECHNICIAN, *READERS))
    melanomas = (("mel", "nv", "mel"), ("mel", "mel", "nv"), ("mel",) * 3, ("mel",) * 3)
    said = [melanomas[number % 4] for number in range(44)] + [("nv",) * 3] * 16
    reviews = [read_by_three(f"{number}", row, policy) for number, row in enumerate(said)]
    found = reliability.estimate(reviews, TAXONOMY, 0.5)
    assert found is not None
    return found


def a_disc(x: float, y: float, radius: float) -> RleMask:
    rows, columns = np.mgrid[: SIZE.height, : SIZE.width]
    return RleMask.from_array((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def painted(mask: RleMask, diagnosis: str = "nv") -> Lesion:
    box = mask.envelope()
    assert box is not None
    return replace(a_lesion(diagnosis), box=box, shape=mask)


def test_one_reading_stays_as_it_is() -> None:
    (reading,) = (a_reading(a_lesion()),)
    settled = settle([reading], Policy(), None)
    assert settled is not None and (settled.reading, settled.how) == (reading, "one reader")


def test_merged_boxes_lie_between_those_of_the_readers() -> None:
    settled = settle([a_reading(a_lesion(left=10)), a_reading(a_lesion(left=14), author="ben")], Policy(), None)
    assert settled is not None
    assert settled.reading.lesions[0].box == PixelBox(12, 10, 62, 60)
    assert (settled.reading.level, settled.reading.author) == (TruthLevel.CONSENSUS, "anna + ben")
    assert settled.how == "all 2 readers"


def test_each_lesion_is_merged_with_its_own_partner() -> None:
    one = a_reading(a_lesion(left=10), a_lesion(left=100))
    other = a_reading(a_lesion(left=104), a_lesion(left=14), author="ben")
    settled = settle([one, other], Policy(), None)
    assert settled is not None and [lesion.box.x_min for lesion in settled.reading.lesions] == [12, 102]


@pytest.mark.parametrize(
    "other",
    [
        a_reading(a_lesion("mel"), author="ben"),
        a_reading(a_lesion(left=100), author="ben"),
        a_reading(a_lesion(), a_lesion(left=100), author="ben"),
        a_reading(author="ben", finding=Finding.LESION_FREE),
    ],
)
def test_what_differs_is_disputed(other: Annotation) -> None:
    assert settle([a_reading(a_lesion()), other], Policy(), None) is None


def test_two_of_three_are_enough_where_the_policy_says_so_and_the_third_stays_as_a_soft_label() -> None:
    assert settle(three("mel", "mel", "nv"), Policy(), None) is None
    settled = settle(three("mel", "mel", "nv"), THREE, None)
    assert settled is not None
    (lesion,) = settled.reading.lesions
    assert (lesion.diagnosis, lesion.severity) == ("mel", "high")
    assert lesion.probabilities == (("mel", pytest.approx(2 / 3)), ("nv", pytest.approx(1 / 3)))
    assert settled.how == "majority 0.67 of 3 readers"
    assert settle(three("mel", "bkl", "nv"), THREE, None) is None


def test_a_reliable_reader_outweighs_two_who_are_often_wrong() -> None:
    known = experience()
    assert settle(three("mel", "nv", "nv"), THREE, known) is not None
    weighed = settle(three("mel", "nv", "nv"), WEIGHED, known)
    assert weighed is not None and weighed.reading.lesions[0].diagnosis == "mel"
    assert weighed.how.startswith("Dawid-Skene 0.9") and known.digest[:12] in weighed.how
    assert known.correct(ANNA.email) > known.correct(BEN.email)


def test_reliability_is_believed_only_after_enough_lesions() -> None:
    known = replace(experience(), lesions=19)
    settled = settle(three("mel", "nv", "nv"), WEIGHED, known)
    assert settled is not None and settled.reading.lesions[0].diagnosis == "nv"


def test_an_estimate_is_read_back_as_it_was_written() -> None:
    known = experience()
    again = reliability.decode(known.encode())
    assert (again.digest, again.shares({ANNA.email: ("mel", "high")})) == (
        known.digest,
        known.shares({ANNA.email: ("mel", "high")}),
    )
    assert max(known.shares({"new@example.org": ("nv", "low"), "newer@example.org": ("nv", "low")}).values()) > 0.5


def test_masks_of_all_readers_are_merged_by_staple() -> None:
    discs = [painted(a_disc(100, 50, radius)) for radius in (20, 24, 25)]
    readings = [a_reading(lesion, author=f"r{n}") for n, lesion in enumerate(discs)]
    settled = settle(readings, THREE, None)
    assert settled is not None
    shape = settled.reading.lesions[0].shape
    assert isinstance(shape, RleMask) and shape.area() == a_disc(100, 50, 24).area()
    assert settled.reading.lesions[0].box == shape.envelope()
    assert not isinstance(settle([*readings[:2], a_reading(a_lesion(left=75))], THREE, None), RleMask)


def test_masks_are_merged_by_majority_where_the_policy_says_so() -> None:
    masks = [a_disc(100, 50, radius) for radius in (10, 20, 30)]
    assert merge_masks(masks, by_staple=False) == a_disc(100, 50, 20)
    policy = replace(THREE, merge=Merge(masks=MaskMerge.MAJORITY), agreement=Agreement(iou=0.1))
    settled = settle([a_reading(painted(mask), author=f"r{n}") for n, mask in enumerate(masks)], policy, None)
    assert settled is not None and settled.reading.lesions[0].shape == a_disc(100, 50, 20)


def test_three_readers_of_whom_one_differs_are_settled_by_policy_and_on_record() -> None:
    setting = a_setting(replace(THREE, qa=replace(THREE.qa, malignant=False)), (TECHNICIAN, *READERS))
    review = read_by_three("1", ("nv", "nv", "bkl"), setting)
    assert review.state is ReviewState.APPROVED
    assert review.truth is not None and review.truth.level is TruthLevel.CONSENSUS
    assert dict(review.truth.lesions[0].probabilities) == {"nv": pytest.approx(2 / 3), "bkl": pytest.approx(1 / 3)}


def test_what_one_of_three_called_malignant_still_reaches_qa() -> None:
    setting = a_setting(THREE, (TECHNICIAN, *READERS))
    review = read_by_three("1", ("nv", "nv", "mel"), setting)
    assert review.state is ReviewState.AGREED
    proposal = shown(review, current_key(review, Tier.QA), setting)
    assert proposal is not None and proposal.lesions[0].diagnosis == "nv"


def test_the_estimate_is_made_in_the_flow_and_its_decisions_name_it(tmp_path: Path) -> None:
    studio = MemoryLabelStudio()
    policy = replace(WEIGHED, merge=replace(WEIGHED.merge, after_lesions=2))
    people = (TECHNICIAN, *READERS, QA)
    service = a_service(a_store(tmp_path, people), studio, policy, Ticking())
    service.register(an_image(number) for number in range(4))
    for number, said in enumerate(
        (("bkl", "bkl", "nv"), ("nv", "nv", "nv"), ("bkl", "bkl", "nv"), ("bkl", "nv", "nv"))
    ):
        service.settle()
        task = next(t for t in studio.open_tasks(Tier.TECHNICIAN) if an_image(number).image_id in str(t.data["key"]))
        studio.annotate(task.task_id, TECHNICIAN.user_id or 0, a_result())
        service.settle()
        for person, diagnosis in zip(READERS, said, strict=True):
            (task,) = [t for t in studio.open_tasks(Tier.DERMATOLOGIST) if t.data["assignee"] == person.email]
            studio.annotate(task.task_id, person.user_id or 0, a_result([a_lesion(diagnosis)], "Accept"))
        service.settle()
        service.order()
    reasons = [entry.reason for entry in service.history() if entry.happened == "agreed"]
    assert reasons[0] == "majority 0.67 of 3 readers" and reasons[1] == "all 3 readers"
    assert reasons[3].startswith("Dawid-Skene")
    estimated = [entry.reason for entry in service.history() if entry.happened == "reliability estimated"]
    assert any(reasons[3].split()[-1] in reason for reason in estimated)
    assert service.verify_audit() == ()
