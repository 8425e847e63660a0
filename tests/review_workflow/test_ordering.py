"""Queues by expected harm: what may be a missed malignancy comes first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from builders_review import (
    NO_SECOND_READER,
    TAXONOMY,
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
from review_workflow.decisions import register
from review_workflow.ordering import FIFO, malignancy, priority
from review_workflow.policy import Order, Queue
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
