"""Queues by expected harm: what may be a missed malignancy comes first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders_review import (
    ANNA,
    NO_SECOND_READER,
    TAXONOMY,
    TECHNICIAN,
    MemoryLabelStudio,
    a_lesion,
    a_result,
    a_service,
    a_store,
    an_image,
    current_key,
)

from converters.annotation import Annotation, Finding, Lesion
from converters.label_studio.controls import TaskField, Tier
from review_workflow import queue_order, service
from review_workflow.decisions import register
from review_workflow.ordering import FIFO, malignancy, priority
from review_workflow.policy import Order, Policy, Queue
from review_workflow.service import ReviewService
from review_workflow.states import ReviewState

REVIEW = register("image").review
KEY = current_key(REVIEW, Tier.TECHNICIAN)


def a_model(diagnosis: str, score: float) -> Annotation:
    return Annotation("image", Finding.LESIONS, (replace(a_lesion(diagnosis), score=score),), model_version="m1")


def soon(model: Annotation | None, approved: dict[str, int] | None = None, order: Order = Order.HARM) -> float:
    return priority(REVIEW, KEY, model, approved or {}, TAXONOMY, order)


def test_an_unsure_melanoma_comes_before_a_sure_nevus() -> None:
    ranked = [a_model("mel", 0.7), a_model("nv", 0.6), a_model("nv", 0.99)]
    values = [soon(model) for model in ranked]
    assert values == sorted(values, reverse=True)


def test_a_reading_without_boxes_is_not_harmless() -> None:
    empty = Annotation("image", Finding.NOT_LOOKED_AT)
    assert 0.0 < soon(empty) < soon(a_model("mel", 0.9))
    assert malignancy(replace(empty, lesions=(Lesion(a_lesion().box),), finding=Finding.LESIONS), TAXONOMY) == 0.5


def test_rare_diagnoses_come_first() -> None:
    assert soon(a_model("vasc", 0.6), {"vasc": 1000}) < soon(a_model("vasc", 0.6), {"nv": 1000})


def test_fifo_treats_all_alike() -> None:
    assert {soon(a_model("mel", 0.7), order=Order.FIFO), soon(None, order=Order.FIFO)} == {FIFO}


def test_disputed_images_and_returned_work_come_first() -> None:
    assert priority(replace(REVIEW, state=ReviewState.DISPUTED), KEY, None, {}, TAXONOMY) == 1.0
    assert priority(REVIEW, replace(KEY, round=2), None, {}, TAXONOMY) > soon(a_model("nv", 0.5))


def test_the_order_is_written_where_label_studio_sorts_and_follows_the_model(tmp_path: Path) -> None:
    studio = MemoryLabelStudio()
    service = a_service(a_store(tmp_path), studio, NO_SECOND_READER)
    service.register([an_image(0), an_image(1)])
    service.sync()
    first, second = sorted(studio.all_tasks)
    studio.predict(first, "m1", a_result([replace(a_lesion("nv"), score=0.95)]))
    studio.predict(second, "m1", a_result([replace(a_lesion("mel"), score=0.8)]))
    assert service.order().looked_at == 2
    assert studio.all_tasks[first].data[TaskField.PRIORITY] < studio.all_tasks[second].data[TaskField.PRIORITY]  # type: ignore[operator]
    assert service.order().looked_at == 0
    studio.predict(first, "m2", a_result([replace(a_lesion("mel"), score=0.6)]))
    service.order()
    assert studio.all_tasks[first].data[TaskField.PRIORITY] > 0.5  # type: ignore[operator]


def test_fifo_by_policy_leaves_the_order_alone(tmp_path: Path) -> None:
    studio = MemoryLabelStudio()
    service = a_service(a_store(tmp_path), studio, replace(NO_SECOND_READER, queue=Queue(Order.FIFO)))
    service.register([an_image(0)])
    service.sync()
    (task_id,) = studio.all_tasks
    studio.predict(task_id, "m1", a_result([replace(a_lesion("mel"), score=0.8)]))
    service.order()
    assert studio.all_tasks[task_id].data[TaskField.PRIORITY] == FIFO


class Clinic:
    """So many images whose technicians' tasks wait, each with the same suspicion of the same model."""

    def __init__(self, folder: Path, images: int) -> None:
        self.store, self.studio = a_store(folder), MemoryLabelStudio()
        self.service = self.opened()
        self.service.register(an_image(number) for number in range(images))
        self.service.sync()
        for number in range(images):
            self.predict(number, "m1")

    def opened(self, policy: Policy = NO_SECOND_READER) -> ReviewService:
        return a_service(self.store, self.studio, policy)

    def task(self, number: int) -> int:
        found = (t for t in self.studio.all_tasks.values() if t.data[TaskField.KEY] == f"{number:064x}:1:1:1")
        return next(found).task_id

    def predict(self, number: int, model: str, score: float = 0.8) -> None:
        self.studio.predict(self.task(number), model, a_result([replace(a_lesion("vasc"), score=score)]))

    def priorities(self, *numbers: int) -> list[object]:
        return [self.studio.all_tasks[self.task(number)].data[TaskField.PRIORITY] for number in numbers]

    def moved(self, before: list[object]) -> int:
        """How many of the images from the second on have another priority than before."""
        now = self.priorities(*range(1, 1 + len(before)))
        return sum(new != old for new, old in zip(now, before, strict=True))

    def approve(self, *numbers: int) -> None:
        for tier, person, verdict in ((Tier.TECHNICIAN, TECHNICIAN, None), (Tier.DERMATOLOGIST, ANNA, "Accept")):
            for task in self.studio.open_tasks(tier):
                if int(str(task.data[TaskField.IMAGE_ID]), 16) in numbers:
                    self.studio.annotate(task.task_id, person.user_id or 0, a_result([a_lesion("vasc")], verdict))
            self.service.sync()


def until_done(service: ReviewService) -> int:
    """How many passes it takes until the order has no further to go."""
    passes = 1
    while service.order().more:
        passes += 1
    return passes


def test_a_new_reading_of_the_same_model_moves_its_own_task_and_no_other(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, 6)
    until_done(clinic.service)
    before = clinic.priorities(3, 4, 5)
    clinic.approve(0, 1)
    clinic.predict(3, "m1", score=0.6)
    assert clinic.service.order().delivered == 1
    assert clinic.priorities(4, 5) == before[1:] and clinic.priorities(3) != before[:1]


def test_another_model_refreshes_the_whole_order_by_what_was_approved_meanwhile(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, 6)
    until_done(clinic.service)
    before = clinic.priorities(2, 3, 4)
    clinic.approve(0, 1)
    clinic.predict(5, "m2")
    until_done(clinic.service)
    after = clinic.priorities(2, 3, 4)
    assert all(new < old for new, old in zip(after, before, strict=True))  # type: ignore[operator]
    assert clinic.service.order().delivered == 0


def test_half_as_many_approvals_again_refresh_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_order, "_AT_LEAST", 2)
    clinic = Clinic(tmp_path, 5)
    until_done(clinic.service)
    (before,) = clinic.priorities(4)
    clinic.approve(0)
    until_done(clinic.service)
    assert clinic.priorities(4) == [before]
    clinic.approve(1)
    until_done(clinic.service)
    assert clinic.priorities(4)[0] < before  # type: ignore[operator]


def test_the_refresh_goes_in_chunks_and_on_where_a_process_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_order, "_CHUNK", 2)
    monkeypatch.setattr(service, "_ORDER_SECONDS", 0.0)
    clinic = Clinic(tmp_path, 7)
    assert until_done(clinic.service) > 4
    before = clinic.priorities(*range(1, 6))
    clinic.approve(0)
    clinic.predict(6, "m2")
    while not (moved := clinic.moved(before)):
        assert clinic.service.order().more
    assert moved < 5
    until_done(clinic.opened())
    assert clinic.moved(before) == 5


def test_another_order_by_policy_refreshes_all(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, 3)
    until_done(clinic.service)
    assert FIFO not in clinic.priorities(0, 1, 2)
    until_done(clinic.opened(replace(NO_SECOND_READER, queue=Queue(Order.FIFO))))
    assert clinic.priorities(0, 1, 2) == [FIFO] * 3
    until_done(clinic.service)
    assert FIFO not in clinic.priorities(0, 1, 2)
