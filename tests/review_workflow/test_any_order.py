"""Random people do random things in random order; webhooks get lost, doubled and late; the service dies anywhere.

Beside the real service runs a reference: the same answers in the same order, each taken in at once, on a database that
never fails. Whatever happened on the way, after one quiet pass both must say the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from builders_review import (
    ANNA,
    BEN,
    ENGINEER,
    EVERYBODY,
    NO_SECOND_READER,
    PROJECTS,
    QA,
    SECOND_TECHNICIAN,
    STRANGER,
    TECHNICIAN,
    MemoryLabelStudio,
    MemoryTask,
    Ticking,
    a_lesion,
    a_result,
    a_service,
    a_store,
    an_image,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from converters.label_studio.controls import TaskField, Tier
from review_workflow.policy import Quality, QualityAssurance, Readers
from review_workflow.states import ReviewState
from review_workflow.store import Session, Store
from review_workflow.webhooks import Hint

POLICY = replace(
    NO_SECOND_READER,
    readers=Readers(0.5, True),
    qa=QualityAssurance(share_of_agreed=1.0),
    quality=Quality(share_blind=0.4),
)
IMAGES = [an_image(number) for number in range(3)]
USERS = [*(person.user_id for person in EVERYBODY), STRANGER]
VERDICTS = {
    Tier.TECHNICIAN: [None],
    Tier.DERMATOLOGIST: ["Accept", "Correct", "Send back", "Escalate", None],
    Tier.QA: ["Approve", "Correct", "Send back", "Exclude", None],
}
MAY_CAUSE = {
    "registered": {"service"},
    "labelled": {"technician"},
    "read": {"dermatologist"},
    "agreed": {"service"},
    "disputed": {"service"},
    "sent back": {"dermatologist", "qa"},
    "approved": {"qa", "service"},
    "excluded": {"qa"},
    "reopened": {"technician", "dermatologist", "qa"},
    "withdrawn": {"admin"},
}


class Crash(BaseException):
    """The process is gone, here and now."""


class FragileStore(Store):
    """A database whose process dies at a chosen step: before a transaction, inside it, or right after its commit."""

    countdown: int | None = None

    @contextmanager
    def writing(self) -> Iterator[Session]:
        self._step()
        with super().writing() as session:
            yield session
            self._step()
        self._step()

    def _step(self) -> None:
        if self.countdown is not None:
            self.countdown -= 1
            if self.countdown < 0:
                self.countdown = None
                raise Crash


class AnyOrder(RuleBasedStateMachine):
    """The real house, which suffers, and the reference house, which does not."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = FragileStore(a_store(Path(self.folder.name) / "real")._engine)
        self.studio, self.clock = MemoryLabelStudio(), Ticking()
        self.service = a_service(self.store, self.studio, POLICY, self.clock)
        reference = a_store(Path(self.folder.name) / "reference")
        self.reference_studio = MemoryLabelStudio()
        self.reference = a_service(reference, self.reference_studio, POLICY)
        for service in (self.service, self.reference):
            service.register(IMAGES)
            service.sync()

    @rule(data=st.data(), user=st.sampled_from(USERS), diagnosis=st.sampled_from(["nv", "mel", "bkl"]))
    def submit(self, data: st.DataObject, user: int, diagnosis: str) -> None:
        """Somebody answers some task, with webhooks sent none, one or two times, now or later."""
        tasks = sorted(self.studio.all_tasks.values(), key=lambda task: task.task_id)
        if not tasks:
            return
        task = data.draw(st.sampled_from(tasks))
        tier = next(tier for tier, project in PROJECTS.items() if project == task.project_id)
        if any(annotation.completed_by == user for annotation in task.annotations.values()):
            return
        verdict = data.draw(st.sampled_from(VERDICTS[tier]))
        reason = data.draw(st.sampled_from(["", "Tighter."]))
        result = a_result([a_lesion(diagnosis)], verdict, reason)
        self.studio.annotate(task.task_id, user, result)
        for _ in range(data.draw(st.integers(0, 2))):
            self.service.receive(Hint(task.project_id, (task.task_id,), "ANNOTATION_CREATED"))
        self._answer_in_reference(str(task.data[TaskField.KEY]), user, result)

    @rule(data=st.data(), person=st.sampled_from([TECHNICIAN, ANNA, BEN, QA]))
    def work_off_the_queue(self, data: st.DataObject, person: object) -> None:
        """Somebody does properly what is theirs to do."""
        for tier in Tier:
            for task in self.studio.open_tasks(tier, person):  # type: ignore[arg-type]
                if person.may_answer(tier):  # type: ignore[attr-defined]
                    verdict = data.draw(st.sampled_from([v for v in VERDICTS[tier] if v or tier is Tier.TECHNICIAN]))
                    diagnosis = data.draw(st.sampled_from(["nv", "mel"]))
                    result = a_result([a_lesion(diagnosis)], verdict, "Because.")
                    self.studio.annotate(task.task_id, person.user_id, result)  # type: ignore[attr-defined]
                    self._answer_in_reference(str(task.data[TaskField.KEY]), person.user_id, result)  # type: ignore[attr-defined]
                    return

    @rule(data=st.data(), diagnosis=st.sampled_from(["nv", "mel"]))
    def edit(self, data: st.DataObject, diagnosis: str) -> None:
        """Somebody changes an answer that was taken in already."""
        self._settle()
        answered = [task for task in self.studio.all_tasks.values() if task.annotations]
        if not answered:
            return
        task = data.draw(st.sampled_from(sorted(answered, key=lambda task: task.task_id)))
        tier = next(tier for tier, project in PROJECTS.items() if project == task.project_id)
        known = data.draw(st.sampled_from(sorted(task.annotations.values(), key=lambda a: a.annotation_id)))
        result = a_result([a_lesion(diagnosis)], data.draw(st.sampled_from(VERDICTS[tier])), "Second thoughts.")
        user = data.draw(st.sampled_from([known.completed_by, ANNA.user_id, SECOND_TECHNICIAN.user_id]))
        self.studio.edit(known.annotation_id, user or 0, result)
        self._edit_in_reference(str(task.data[TaskField.KEY]), known.completed_by, user or 0, result)

    @rule(which=st.integers(0, 2))
    def withdraw(self, which: int) -> None:
        """A patient withdraws consent."""
        self._settle()
        for service in (self.service, self.reference):
            service.withdraw(f"patient-{which}")
            service.sync()

    @rule()
    def follow_hints(self) -> None:
        """The service follows the webhooks that reached it."""
        self.service.follow_hints()

    @rule(full=st.booleans())
    def reconcile(self, full: bool) -> None:
        """The timer's pass."""
        self.service.sync(full)

    @rule(steps=st.integers(0, 12))
    def die(self, steps: int) -> None:
        """The service is killed somewhere in the middle of a pass, and started again."""
        self.store.countdown = steps
        try:
            self.service.sync()
        except Crash:
            pass
        finally:
            self.store.countdown = None
        self.service = a_service(self.store, self.studio, POLICY, self.clock)

    @rule()
    def die_between_label_studio_and_us(self) -> None:
        """The service is killed after Label Studio made the tasks and before it could note them."""
        self.studio.crash_after_create = Crash()
        try:
            self.service.sync()
        except Crash:
            pass
        finally:
            self.studio.crash_after_create = None
        self.service = a_service(self.store, self.studio, POLICY, self.clock)

    @invariant()
    def the_audit_log_verifies_and_only_the_right_roles_moved_anything(self) -> None:
        assert self.service.verify_audit() == ()
        for entry in self.service.history():
            assert entry.role in MAY_CAUSE.get(entry.happened, {entry.role})
            assert entry.actor != ENGINEER.email or entry.happened == "refused"

    @invariant()
    def no_approved_label_is_lost(self) -> None:
        for record, given in self.service.approved():
            approvals = [e for e in self.service.history(record.image_id) if e.happened == "approved"]
            assert given[0].level >= 2
            assert approvals and f'"{given[0].lesions[0].diagnosis}"' in approvals[-1].after

    @invariant()
    def no_work_lies_in_label_studio_twice(self) -> None:
        keys = [task.data[TaskField.KEY] for task in self.studio.all_tasks.values()]
        assert len(keys) == len(set(keys))

    def teardown(self) -> None:
        if not hasattr(self, "service"):
            return
        self._settle()
        for record in IMAGES:
            assert self._story(self.service, record.image_id) == self._story(self.reference, record.image_id)
        self.store.close()
        self.reference.close()
        self.folder.cleanup()

    def _settle(self) -> None:
        self.clock.now += 600
        self.service.settle()
        self.reference.settle()

    def _story(self, service: object, image_id: str) -> tuple[object, ...]:
        review = service.review(image_id)  # type: ignore[attr-defined]
        said = tuple(
            (str(a.key), a.annotation.author, a.verdict, a.reason, [x.diagnosis for x in a.annotation.lesions])
            for a in sorted(review.answers, key=lambda answer: answer.key)
        )
        truth = review.truth and (review.truth.level, review.truth.author, review.truth.finding)
        return (review.state, review.revision, truth, said if review.state is not ReviewState.WITHDRAWN else ())

    def _in_reference(self, key: str) -> MemoryTask | None:
        found = (t for t in self.reference_studio.all_tasks.values() if t.data[TaskField.KEY] == key)
        return next(found, None)

    def _answer_in_reference(self, key: str, user: int, result: bytes) -> None:
        task = self._in_reference(key)
        if task is not None:
            self.reference_studio.annotate(task.task_id, user, result)
            self.reference.sync()

    def _edit_in_reference(self, key: str, author: int | None, user: int, result: bytes) -> None:
        task = self._in_reference(key)
        for known in list(task.annotations.values()) if task else []:
            if known.completed_by == author:
                self.reference_studio.edit(known.annotation_id, user, result)
                self.reference.sync()
                return


class AnyOrderAtLength(AnyOrder):
    """The same, many times longer."""


_SHORT = settings(max_examples=4, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))
AnyOrder.TestCase.settings = _SHORT
AnyOrderAtLength.TestCase.settings = settings(_SHORT, max_examples=20, stateful_step_count=30)
TestAnyOrder = AnyOrder.TestCase
TestAnyOrderAtLength = pytest.mark.e2e(AnyOrderAtLength.TestCase)
