"""The service against a Label Studio in memory: webhooks or not, crashes or not, the same state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders_review import (
    ANNA,
    BEN,
    NO_SECOND_READER,
    QA,
    SECOND_TECHNICIAN,
    STRANGER,
    TECHNICIAN,
    TWO_READERS,
    MemoryLabelStudio,
    Ticking,
    a_lesion,
    a_result,
    a_service,
    a_store,
    an_image,
)

from converters.annotation import TruthLevel
from converters.label_studio.controls import TaskField, Tier
from converters.truth import TruthPolicy, resolve
from review_workflow.errors import LabelStudioError, ReviewError, UnknownImageError
from review_workflow.policy import Policy
from review_workflow.presentation import PRELOADED
from review_workflow.review import WorkKey
from review_workflow.service import ReviewService
from review_workflow.store import Store
from review_workflow.store.traffic import TaskPlace
from review_workflow.sync import project_fact
from review_workflow.webhooks import Hint

AWAY = LabelStudioError("Label Studio", "connection refused", "an answer", "Start it.")


class House:
    """One review with its Label Studio, and shorthands for what people do there."""

    def __init__(self, store: Store, policy: Policy) -> None:
        self.store = store
        self.studio = MemoryLabelStudio()
        self.clock = Ticking()
        self.service: ReviewService = a_service(store, self.studio, policy, self.clock)

    def label(self, diagnosis: str = "nv") -> None:
        self.answer(Tier.TECHNICIAN, TECHNICIAN.user_id, a_result([a_lesion(diagnosis)]))

    def answer(self, tier: Tier, user_id: int | None, result: bytes) -> list[int]:
        person = next((p for p in (TECHNICIAN, SECOND_TECHNICIAN, ANNA, BEN, QA) if p.user_id == user_id), None)
        tasks = self.studio.open_tasks(tier, person)
        made = [self.studio.annotate(task.task_id, user_id or STRANGER, result) for task in tasks]
        self.service.sync()
        return made

    def state(self, number: int = 0) -> str:
        return self.service.review(an_image(number).image_id).state.value

    def notes(self, tier: Tier) -> list[str]:
        found = [t for t in self.studio.all_tasks.values() if f":{int(tier)}:" in str(t.data[TaskField.KEY])]
        return [str(task.data[TaskField.NOTE]) for task in found]


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(a_store(tmp_path), NO_SECOND_READER)
    house.service.register([an_image(0)])
    house.service.sync()
    return house


@pytest.fixture
def house_of_two(tmp_path: Path) -> House:
    house = House(a_store(tmp_path), TWO_READERS)
    house.service.register([an_image(0)])
    house.service.sync()
    return house


def test_registering_twice_makes_one_task(house: House) -> None:
    assert house.service.register([an_image(0)]) == 0
    house.service.sync()
    assert [task.data[TaskField.STATE] for task in house.studio.all_tasks.values()] == ["imported"]


def test_an_image_goes_through_the_tiers_to_an_approved_truth(house: House) -> None:
    house.label("mel")
    house.answer(Tier.DERMATOLOGIST, ANNA.user_id, a_result([a_lesion("mel")], "Accept"))
    house.answer(Tier.QA, QA.user_id, a_result([a_lesion("mel")], "Approve"))
    ((record, annotations),) = house.service.approved()
    truth = resolve(record.image_id, annotations, TruthPolicy())
    assert truth is not None and (truth.level, truth.author) == (TruthLevel.QA, QA.email)
    assert [a.level for a in annotations] == [TruthLevel.QA, TruthLevel.DERMATOLOGIST, TruthLevel.TECHNICIAN]
    assert house.service.verify_audit() == ()


def test_the_reader_finds_the_technicians_boxes_and_words(house: House) -> None:
    house.label("mel")
    (task,) = house.studio.open_tasks(Tier.DERMATOLOGIST)
    assert [s.model_version for s in task.draft.suggestions] == [PRELOADED[Tier.DERMATOLOGIST]]
    assert task.data[TaskField.NOTE] == "Technician tech@example.org: Melanoma"
    assert task.data[TaskField.ASSIGNEE] == ANNA.email
    assert house.studio.preloaded == {12: PRELOADED[Tier.DERMATOLOGIST]}


def test_a_reader_never_sees_the_other_readers_answer(house_of_two: House) -> None:
    house = house_of_two
    house.label()
    house.answer(Tier.DERMATOLOGIST, ANNA.user_id, a_result([a_lesion("bkl")], "Correct"))
    assert all(ANNA.email not in note for note in house.notes(Tier.DERMATOLOGIST))


def test_qa_sees_every_reading_of_a_disputed_image(house_of_two: House) -> None:
    house = house_of_two
    house.label()
    house.answer(Tier.DERMATOLOGIST, ANNA.user_id, a_result([a_lesion("nv")], "Accept"))
    house.answer(Tier.DERMATOLOGIST, BEN.user_id, a_result([a_lesion("bkl")], "Correct"))
    (task,) = house.studio.open_tasks(Tier.QA)
    assert [s.model_version for s in task.draft.suggestions] == [
        PRELOADED[Tier.QA],
        "dermatologist: anna@example.org round 1, reader 1",
        "dermatologist: ben@example.org round 1, reader 2",
    ]
    assert task.data[TaskField.STATE] == "disputed"
    note = str(task.data[TaskField.NOTE])
    assert "Dermatologist ben@example.org (reader 2): correct: Benign keratosis-like lesion" in note
    assert "Dermatologist anna@example.org (reader 1): accept: what the technician names" in note


def test_the_technician_sees_why_work_came_back_and_their_own_boxes(house: House) -> None:
    house.label()
    house.answer(Tier.DERMATOLOGIST, ANNA.user_id, a_result([], "Send back", "Tighter, please."))
    (task,) = house.studio.open_tasks(Tier.TECHNICIAN)
    assert task.data[TaskField.REASON] == "anna@example.org (dermatologist): Tighter, please."
    assert str(task.data[TaskField.NOTE]).startswith("Sent back by anna@example.org (dermatologist): Tighter, please.")
    assert [s.model_version for s in task.draft.suggestions] == ["technician: tech@example.org round 1"]
    (lesion,) = house.studio.desks[task.task_id, TECHNICIAN.email].lesions
    assert lesion.diagnosis == "nv"
    house.label("bkl")
    assert house.state() == "labelled"


def test_returned_work_that_somebody_else_gets_lies_on_their_desk(house: House) -> None:
    house.label()
    house.answer(Tier.DERMATOLOGIST, ANNA.user_id, a_result([], "Send back", "Tighter, please."))
    (task,) = house.studio.open_tasks(Tier.TECHNICIAN)
    house.service.hand_over(TECHNICIAN.email)
    house.service.settle()
    assert set(house.studio.desks) == {(task.task_id, TECHNICIAN.email), (task.task_id, SECOND_TECHNICIAN.email)}


def test_a_stranger_and_a_person_of_another_role_change_nothing_and_are_told(house: House) -> None:
    (task,) = house.studio.open_tasks(Tier.TECHNICIAN)
    house.studio.annotate(task.task_id, STRANGER, a_result())
    house.studio.annotate(task.task_id, QA.user_id or 0, a_result())
    report = house.service.sync()
    assert (report.counted, report.refused, house.state()) == (0, 2, "imported")
    assert house.notes(Tier.TECHNICIAN)[0].startswith("Not counted: This is work for the role technician; yours is qa.")
    assert [e.actor for e in house.service.history() if e.happened == "refused"] == ["user 99", QA.email]


def test_an_unreadable_answer_is_on_record_and_its_author_is_told(house: House) -> None:
    (task,) = house.studio.open_tasks(Tier.TECHNICIAN)
    house.studio.annotate(task.task_id, TECHNICIAN.user_id or 0, a_result([a_lesion()], finding="lesion-free"))
    assert house.service.sync().refused == 1
    assert "Not counted: This answer cannot be read" in house.notes(Tier.TECHNICIAN)[0]


def test_a_skipped_task_is_on_record_and_moves_nothing(house: House) -> None:
    (task,) = house.studio.open_tasks(Tier.TECHNICIAN)
    house.studio.annotate(task.task_id, TECHNICIAN.user_id or 0, a_result(), cancelled=True)
    house.service.sync()
    assert house.state() == "imported"
    assert "skipped" in [entry.happened for entry in house.service.history()]


def test_following_a_webhook_leads_where_reconciliation_leads(tmp_path: Path) -> None:
    states = []
    for name, by_webhook in (("hooked", True), ("reconciled", False)):
        house = House(a_store(tmp_path / name), TWO_READERS)
        house.service.register([an_image(0)])
        house.service.sync()
        for tier, person, verdict in (
            (Tier.TECHNICIAN, TECHNICIAN, None),
            (Tier.DERMATOLOGIST, ANNA, "Accept"),
            (Tier.DERMATOLOGIST, BEN, "Accept"),
        ):
            (task,) = house.studio.open_tasks(tier, person)
            house.studio.annotate(task.task_id, person.user_id or 0, a_result(verdict=verdict))
            if by_webhook:
                house.service.receive(Hint(task.project_id, (task.task_id,), "ANNOTATION_CREATED"))
                house.service.receive(Hint(task.project_id, (task.task_id,), "ANNOTATION_CREATED"))
                house.service.follow_hints()
            else:
                house.service.sync()
        states.append([(e.happened, e.actor, e.key) for e in house.service.history() if e.image_id])
    assert states[0] == states[1]


def test_nothing_is_lost_while_label_studio_is_away(house: House) -> None:
    house.label()
    (task,) = house.studio.open_tasks(Tier.DERMATOLOGIST)
    house.studio.annotate(task.task_id, ANNA.user_id or 0, a_result([], "Send back", "Blurred."))
    house.service.sync()
    house.studio.away = AWAY
    with pytest.raises(LabelStudioError):
        house.service.sync()
    house.studio.away = None
    house.clock.now += 120
    house.service.settle()
    assert len(house.studio.open_tasks(Tier.TECHNICIAN)) == 1


def test_a_crash_after_the_task_was_made_does_not_make_it_twice(house: House) -> None:
    house.service.register([an_image(1)])
    house.studio.crash_after_create = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        house.service.sync()
    again = a_service(house.store, house.studio, NO_SECOND_READER, house.clock)
    again.sync()
    keys = [task.data[TaskField.KEY] for task in house.studio.all_tasks.values()]
    assert len(keys) == len(set(keys)) == 2


def test_a_task_deleted_in_label_studio_is_made_again(house: House) -> None:
    (task,) = house.studio.open_tasks(Tier.TECHNICIAN)
    house.studio.delete_task(task.task_id)
    house.service.receive(Hint(task.project_id, (task.task_id,), "TASKS_DELETED"))
    house.service.sync()
    assert len(house.studio.open_tasks(Tier.TECHNICIAN)) == 1
    assert "task deleted" in [entry.happened for entry in house.service.history()]


def test_a_deleted_task_whose_webhook_was_lost_is_found_by_the_full_pass(house: House) -> None:
    (task,) = house.studio.open_tasks(Tier.TECHNICIAN)
    house.studio.delete_task(task.task_id)
    house.service.sync()
    assert house.studio.open_tasks(Tier.TECHNICIAN) == []
    house.service.sync(full=True)
    assert len(house.studio.open_tasks(Tier.TECHNICIAN)) == 1
    assert "task deleted" in [entry.happened for entry in house.service.history()]


def test_a_deleted_task_whose_id_was_given_to_another_one_is_found_too(house: House) -> None:
    house.service.register([an_image(1)])
    house.service.sync()
    first, second = house.studio.open_tasks(Tier.TECHNICIAN)
    house.studio.all_tasks[first.task_id] = replace(second, task_id=first.task_id)
    with house.store.writing() as session:
        session.put_place(WorkKey.parse(str(second.data[TaskField.KEY])), TaskPlace(first.task_id, None))
    house.studio.delete_task(second.task_id)
    house.service.sync(full=True)
    keys = [task.data[TaskField.KEY] for task in house.studio.open_tasks(Tier.TECHNICIAN)]
    assert sorted(keys) == sorted([first.data[TaskField.KEY], second.data[TaskField.KEY]])


def test_a_webhook_of_a_foreign_project_moves_nothing_and_is_on_record(house: House) -> None:
    house.service.receive(Hint(77, (1,), "ANNOTATION_CREATED"))
    house.service.follow_hints()
    assert [(row.what, row.source) for row in house.service.refusals.newest(1)] == [("foreign project", "project 77")]
    assert (house.service.status().inbox, house.state()) == (0, "imported")


def test_our_clock_going_backwards_stops_nothing(house: House) -> None:
    house.label("mel")
    house.studio.away = AWAY
    (task,) = house.studio.open_tasks(Tier.DERMATOLOGIST)
    house.studio.annotate(task.task_id, ANNA.user_id or 0, a_result([], "Send back", "Blurred."))
    with pytest.raises(LabelStudioError):
        house.service.sync()
    house.studio.away = None
    house.clock.now -= 30 * 86_400
    house.service.settle()
    assert len(house.studio.open_tasks(Tier.TECHNICIAN)) == 1
    assert house.service.verify_audit() == ()


def test_label_studios_clock_going_backwards_hides_nothing_from_webhooks_and_the_full_pass(house: House) -> None:
    house.label("mel")
    house.studio.offset = -30 * 86_400.0
    (task,) = house.studio.open_tasks(Tier.DERMATOLOGIST)
    house.studio.annotate(task.task_id, ANNA.user_id or 0, a_result([a_lesion("mel")], "Accept"))
    house.service.receive(Hint(task.project_id, (task.task_id,), "ANNOTATION_CREATED"))
    house.service.follow_hints()
    assert house.state() == "agreed"
    (task,) = house.studio.open_tasks(Tier.QA)
    house.studio.annotate(task.task_id, QA.user_id or 0, a_result([a_lesion("mel")], "Approve"))
    house.service.sync()
    house.service.sync(full=True)
    assert house.state() == "approved"
    assert house.service.verify_audit() == ()


def test_the_tasks_of_a_lost_project_are_made_again_in_the_new_one(house: House) -> None:
    house.label("mel")
    lost = [task_id for task_id, task in house.studio.all_tasks.items() if task.project_id == 12]
    for task_id in lost:
        house.studio.delete_task(task_id)
    with house.store.writing() as session:
        session.put_fact(project_fact(Tier.DERMATOLOGIST), "22")
        session.remake_tasks(Tier.DERMATOLOGIST, house.clock())
    house.service.settle()
    assert [task.project_id for task in house.studio.all_tasks.values()] == [11, 22]
    assert house.studio.preloaded[22] == PRELOADED[Tier.DERMATOLOGIST]


def test_a_foreign_task_in_our_project_is_on_record(house: House) -> None:
    (task,) = house.studio.open_tasks(Tier.TECHNICIAN)
    columns = tuple((name, "hand-made" if name == TaskField.KEY else value) for name, value in task.draft.columns)
    task.draft = type(task.draft)(columns)
    house.studio.annotate(task.task_id, TECHNICIAN.user_id or 0, a_result())
    assert house.service.sync().refused == 1
    assert house.service.history()[-1].happened == "foreign task"


def test_withdrawal_removes_the_tasks_of_the_patients_images(house: House) -> None:
    house.label()
    assert house.service.withdraw("patient-0") == (an_image(0).image_id,)
    house.service.sync()
    assert house.studio.all_tasks == {}
    assert house.state() == "withdrawn"
    with pytest.raises(ReviewError, match="a patient with images"):
        house.service.withdraw("nobody")


def test_work_no_longer_needed_disappears_from_the_queue(house_of_two: House) -> None:
    house = house_of_two
    house.label()
    house.answer(Tier.DERMATOLOGIST, ANNA.user_id, a_result([], "Send back", "Blurred."))
    assert house.studio.open_tasks(Tier.DERMATOLOGIST) == []


def test_editing_back_and_forth_ends_with_the_last_word(house: House) -> None:
    house.label("mel")
    (made,) = house.answer(Tier.DERMATOLOGIST, ANNA.user_id, a_result([a_lesion("mel")], "Accept"))
    for diagnosis in ("bkl", "mel", "nv"):
        house.studio.edit(made, ANNA.user_id or 0, a_result([a_lesion(diagnosis)], "Correct"))
        house.service.sync()
    review = house.service.review(an_image(0).image_id)
    assert review.readings(Tier.DERMATOLOGIST)[0].annotation.lesions[0].diagnosis == "nv"
    assert len(house.studio.open_tasks(Tier.QA)) == 1


def test_somebody_elses_edit_of_an_answer_does_not_count(house: House) -> None:
    house.label("mel")
    (made,) = house.answer(Tier.DERMATOLOGIST, ANNA.user_id, a_result([a_lesion("mel")], "Accept"))
    house.studio.edit(made, BEN.user_id or 0, a_result([a_lesion("nv")], "Correct"))
    assert house.service.sync().refused == 1
    review = house.service.review(an_image(0).image_id)
    assert review.readings(Tier.DERMATOLOGIST)[0].annotation.lesions[0].diagnosis == "mel"


def test_the_waiting_work_of_somebody_on_leave_goes_to_others(house_of_two: House) -> None:
    house = house_of_two
    house.label()
    assert [str(key)[-5:] for key in house.service.hand_over(ANNA.email)] == ["2:1:1"]
    house.service.settle()
    assert [t.data[TaskField.ASSIGNEE] for t in house.studio.open_tasks(Tier.DERMATOLOGIST)] == ["", BEN.email]
    assert house.service.history()[-1].reason == "anna@example.org → anybody"


def test_an_unknown_image_is_named(house: House) -> None:
    with pytest.raises(UnknownImageError, match="no-such-image"):
        house.service.review("no-such-image")


def test_a_new_person_is_on_record(house: House) -> None:
    house.service.put_person(BEN)
    assert "person changed" not in [entry.happened for entry in house.service.history()]
    house.service.put_person(type(BEN)(BEN.email, BEN.role, BEN.user_id, active=False))
    assert house.service.history()[-1].reason == "ben@example.org is dermatologist, on leave"
