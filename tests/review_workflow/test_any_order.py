"""Random people do random things in random order; webhooks get lost, doubled and late; the service dies anywhere.

Beside the real service runs a reference: the same answers in the order of their taking in, one at a time, on a database
that never fails. Whatever happened on the way, after one quiet pass no answer is left out and both say the same: under
policies with one and with several readers, majority and Dawid-Skene, masks by STAPLE, blind readings, and gold tasks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from builders_review import (
    ANNA,
    BEN,
    CLARA,
    ENGINEER,
    EVERYBODY,
    NO_SECOND_READER,
    PROJECTS,
    QA,
    SECOND_TECHNICIAN,
    SIZE,
    STRANGER,
    TECHNICIAN,
    Crash,
    FragileStore,
    MemoryLabelStudio,
    MemoryTask,
    Ticking,
    a_lesion,
    a_result,
    a_service,
    a_store,
    an_image,
    painted,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from PIL import Image

from converters.label_studio.controls import TaskField, Tier
from review_workflow import policy as policies
from review_workflow import submissions
from review_workflow.errors import ReviewError
from review_workflow.label_studio import SubmittedAnnotation
from review_workflow.people import Person
from review_workflow.review import WorkKey
from review_workflow.service import ReviewService
from review_workflow.states import ReviewState
from review_workflow.webhooks import Hint

GOLD = policies.Gold(share=0.5, rest_days=0.0, level=policies.Level.DERMATOLOGIST)
TWO_READ = replace(
    NO_SECOND_READER,
    readers=policies.Readers(0.5, True),
    qa=policies.QualityAssurance(share_of_agreed=1.0),
    quality=policies.Quality(share_blind=0.4),
)
THREE_PAINT = replace(
    NO_SECOND_READER,
    readers=policies.Readers(1.0, True, together=3, masks=True),
    agreement=policies.Agreement(diagnosis=0.6),
    merge=policies.Merge(policies.Vote.DAWID_SKENE, policies.MaskMerge.STAPLE, after_lesions=2),
    qa=policies.QualityAssurance(share_of_agreed=0.3, malignant=False),
    quality=policies.Quality(share_blind=0.3),
    gold=GOLD,
)
ONE_READS = replace(
    NO_SECOND_READER, qa=policies.QualityAssurance(0.3, False), queue=policies.Queue(policies.Order.FIFO), gold=GOLD
)
POLICIES = {"two read": TWO_READ, "three paint": THREE_PAINT, "one reads": ONE_READS}
IMAGES = [an_image(number) for number in range(3)]
PEOPLE = (*EVERYBODY, CLARA)
USERS = [*(person.user_id for person in PEOPLE), STRANGER]
WORKERS = [TECHNICIAN, SECOND_TECHNICIAN, ANNA, BEN, CLARA, QA]
DIAGNOSES = ["nv", "mel", "bkl"]
VERDICTS = {
    Tier.TECHNICIAN: [None],
    Tier.DERMATOLOGIST: ["Accept", "Correct", "Send back", "Escalate", None],
    Tier.QA: ["Approve", "Correct", "Send back", "Exclude", None],
}
PROPER = {Tier.TECHNICIAN: [None], Tier.DERMATOLOGIST: ["Accept", "Correct"], Tier.QA: ["Approve", "Exclude"]}
TIERS = {project: tier for tier, project in PROJECTS.items()}
MAY_CAUSE = {
    "registered": {"service"},
    "labelled": {"technician"},
    "read": {"dermatologist"},
    "agreed": {"service"},
    "disputed": {"service"},
    "sent back": {"dermatologist", "qa"},
    "returned": {"qa"},
    "reassigned": {"qa", "admin"},
    "approved": {"qa", "service"},
    "excluded": {"qa"},
    "reopened": {"technician", "dermatologist", "qa"},
    "scored": {"service"},
    "withdrawn": {"admin"},
    "person changed": {"admin"},
    "reliability estimated": {"service"},
}


class AnyOrder(RuleBasedStateMachine):
    """The real house, which suffers, and the reference house, which does not."""

    @initialize(policy=st.sampled_from(sorted(POLICIES)))
    def open(self, policy: str) -> None:
        self.policy = POLICIES[policy]
        self.folder = tempfile.TemporaryDirectory()
        self.pictures = Path(self.folder.name) / "images"
        self.pictures.mkdir()
        for number, record in enumerate(IMAGES):
            Image.new("RGB", (SIZE.width, SIZE.height), (200, number, 90)).save(self.pictures / Path(record.uri).name)
        self.store = FragileStore(a_store(Path(self.folder.name) / "real", PEOPLE)._engine)
        self.studio, self.clock = MemoryLabelStudio(), Ticking()
        self.latest = self.clock.now
        self.untaken: dict[str, tuple[str, SubmittedAnnotation]] = {}
        self.twins: dict[int, int] = {}
        self.heard = 0
        self._start()
        reference = a_store(Path(self.folder.name) / "reference", PEOPLE)
        self.reference_studio = MemoryLabelStudio()
        self.reference = a_service(reference, self.reference_studio, self.policy, images=self.pictures)
        for service in (self.service, self.reference):
            service.register(IMAGES)
            service.sync()

    @rule(data=st.data(), user=st.sampled_from(USERS), diagnosis=st.sampled_from(DIAGNOSES))
    def submit(self, data: st.DataObject, user: int, diagnosis: str) -> None:
        """Somebody answers some task, with webhooks sent none, one or two times, now or later."""
        tasks = sorted(self.studio.all_tasks.values(), key=lambda task: task.task_id)
        if not tasks:
            return
        task = data.draw(st.sampled_from(tasks))
        if any(annotation.completed_by == user for annotation in task.annotations.values()):
            return
        verdict = data.draw(st.sampled_from(VERDICTS[tier_of(task)]))
        result = self._said(diagnosis, verdict, data.draw(st.sampled_from(["", "Tighter."])), tier_of(task))
        self._annotate(task, user, result)
        for _ in range(data.draw(st.integers(0, 2))):
            self.service.receive(Hint(task.project_id, (task.task_id,), "ANNOTATION_CREATED"))

    @rule(data=st.data(), person=st.sampled_from(WORKERS))
    def work_off_the_queue(self, data: st.DataObject, person: Person) -> None:
        """Somebody does properly everything that is theirs to do."""
        for tier in (tier for tier in Tier if person.may_answer(tier)):
            for task in self.studio.open_tasks(tier, person):
                verdict = data.draw(st.sampled_from(PROPER[tier]))
                result = self._said(data.draw(st.sampled_from(DIAGNOSES[:2])), verdict, "Because.", tier)
                self._annotate(task, person.user_id or 0, result)

    @rule(data=st.data(), diagnosis=st.sampled_from(DIAGNOSES[:2]))
    def edit(self, data: st.DataObject, diagnosis: str) -> None:
        """Somebody changes an answer that was taken in already."""
        self._settle()
        answered = [task for task in self.studio.all_tasks.values() if task.annotations]
        if not answered:
            return
        task = data.draw(st.sampled_from(sorted(answered, key=lambda task: task.task_id)))
        known = data.draw(st.sampled_from(sorted(task.annotations.values(), key=lambda a: a.annotation_id)))
        verdict = data.draw(st.sampled_from(VERDICTS[tier_of(task)]))
        result = self._said(diagnosis, verdict, "Second thoughts.", tier_of(task))
        user = data.draw(st.sampled_from([known.completed_by, ANNA.user_id, SECOND_TECHNICIAN.user_id]))
        self.studio.edit(known.annotation_id, user or 0, result)
        edited = task.annotations[known.annotation_id]
        if submissions.source(edited) != submissions.source(known):
            self.untaken[submissions.source(edited)] = (str(task.data[TaskField.KEY]), edited)

    @rule(which=st.integers(0, 2))
    def withdraw(self, which: int) -> None:
        """A patient withdraws consent."""
        self._settle()
        for service in (self.service, self.reference):
            service.withdraw(f"patient-{which}")
            service.sync()

    @rule(person=st.sampled_from([TECHNICIAN, ANNA, BEN, CLARA]), leaves=st.booleans())
    def leave_or_come_back(self, person: Person, leaves: bool) -> None:
        """Somebody goes on leave, and others get their waiting work; or they are back."""
        self._settle()
        self._both(lambda service: service.put_person(replace(person, active=not leaves)))
        if leaves:
            self._both(lambda service: service.hand_over(person.email))

    @rule(data=st.data(), by=st.sampled_from([QA, ANNA]), to=st.sampled_from([None, *WORKERS]))
    def reassign(self, data: st.DataObject, by: Person, to: Person | None) -> None:
        """Work is given to somebody else, by whoever may and by whoever may not."""
        self._settle()
        with self.store.reading() as session:
            waiting: list[WorkKey] = list(session.waiting_keys())
        if waiting:
            key = data.draw(st.sampled_from(waiting))
            self._both(lambda service: service.reassign(key, by, to.email if to else None))

    @rule(which=st.integers(0, 2), tier=st.sampled_from([Tier.TECHNICIAN, Tier.DERMATOLOGIST]))
    def order_back(self, which: int, tier: Tier) -> None:
        """QA sends an image back, whatever state it is in."""
        self._settle()
        self._both(lambda service: service.send_back(IMAGES[which].image_id, QA, tier, "Again."))

    @rule(steps=st.none() | st.integers(0, 20))
    def order_the_queues(self, steps: int | None) -> None:
        """Gold tasks come among the queues and reliability is estimated; the service may die meanwhile."""
        self._settle()
        with self._dying(steps):
            self.service.order()
        self._settle()
        self._both(lambda service: service.order())

    @rule(hours=st.integers(1, 48))
    def clock_goes_back(self, hours: int) -> None:
        """Somebody sets the machine's clock back."""
        self.latest = max(self.latest, self.clock.now)
        self.clock.now -= 3600 * hours

    @rule()
    def follow_hints(self) -> None:
        """The service follows the webhooks that reached it."""
        self.service.follow_hints()
        self._follow()

    @rule(full=st.booleans())
    def reconcile(self, full: bool) -> None:
        """The timer's pass."""
        self.service.sync(full)
        self._follow()

    @rule(steps=st.integers(0, 12))
    def die(self, steps: int) -> None:
        """The service is killed somewhere in the middle of a pass, and started again."""
        with self._dying(steps):
            self.service.sync()

    @rule()
    def die_between_label_studio_and_us(self) -> None:
        """The service is killed after Label Studio made the tasks and before it could note them."""
        self.studio.crash_after_create = Crash()
        with self._dying(None):
            self.service.sync()
        self.studio.crash_after_create = None

    @invariant()
    def the_audit_log_verifies_and_only_the_right_roles_moved_anything(self) -> None:
        assert self.service.verify_audit() == ()
        for entry in self.service.history():
            is_copy = entry.happened == "labelled" and entry.source.startswith("copy of ")
            assert is_copy or entry.role in MAY_CAUSE.get(entry.happened, {entry.role})
            assert entry.actor != ENGINEER.email or entry.happened == "refused"

    @invariant()
    def no_approved_label_is_lost_and_gold_never_becomes_one(self) -> None:
        for record, given in self.service.approved():
            approvals = [e for e in self.service.history(record.image_id) if e.happened == "approved"]
            assert record in IMAGES and given[0].level >= 2
            assert approvals and f'"{given[0].lesions[0].diagnosis}"' in approvals[-1].after
        assert sum(self.service.states().values()) == len(IMAGES)

    @invariant()
    def no_work_lies_in_label_studio_twice(self) -> None:
        keys = [task.data[TaskField.KEY] for task in self.studio.all_tasks.values()]
        assert len(keys) == len(set(keys))

    def teardown(self) -> None:
        if not hasattr(self, "service"):
            return
        self._settle()
        assert stories(self.service) == stories(self.reference)
        assert self.service.gold() == self.reference.gold()
        assert self.service.people() == self.reference.people()
        self.store.close()
        self.reference.close()
        self.folder.cleanup()

    def _start(self) -> None:
        self.service = a_service(self.store, self.studio, self.policy, self.clock, self.pictures)

    @contextmanager
    def _dying(self, steps: int | None) -> Iterator[None]:
        """A stretch in which the process may die, and after which it is started again."""
        self.store.countdown = steps
        with suppress(Crash):
            yield
        self.store.countdown = None
        self._start()
        self._follow()

    def _settle(self) -> None:
        self.clock.now = self.latest = max(self.clock.now, self.latest) + 600
        self.service.settle()
        self._follow()
        assert not self.untaken, "every answer was taken in"
        self.reference.settle()

    def _both(self, act: Callable[[ReviewService], object]) -> None:
        """Does the same in both houses, which both allow it or both refuse it."""
        refused = []
        for service in (self.service, self.reference):
            try:
                act(service)
            except ReviewError as error:
                refused.append(str(error))
            service.settle()
        assert len(set(refused)) <= 1 and len(refused) in (0, 2)

    def _said(self, diagnosis: str, verdict: str | None, reason: str, tier: Tier) -> bytes:
        paints = self.policy.readers.masks and tier is not Tier.TECHNICIAN
        lesion = a_lesion(diagnosis)
        return a_result([painted(lesion) if paints else lesion], verdict, reason)

    def _annotate(self, task: MemoryTask, user: int, result: bytes) -> None:
        made = task.annotations[self.studio.annotate(task.task_id, user, result)]
        self.untaken[submissions.source(made)] = (str(task.data[TaskField.KEY]), made)

    def _follow(self) -> None:
        """Lets the reference take in what the real house has taken in, in that order and each at once."""
        for entry in self.service.history()[self.heard :]:
            self.heard = entry.seq
            if entry.source in self.untaken:
                self._take_in_reference(*self.untaken.pop(entry.source))

    def _take_in_reference(self, key: str, said: SubmittedAnnotation) -> None:
        twin = self.twins.get(said.annotation_id)
        if twin is not None:
            self.reference_studio.edit(twin, said.actor or 0, said.result)
        else:
            task = next(t for t in self.reference_studio.all_tasks.values() if t.data[TaskField.KEY] == key)
            self.twins[said.annotation_id] = self.reference_studio.annotate(task.task_id, said.actor or 0, said.result)
        self.reference.sync()


def tier_of(task: MemoryTask) -> Tier:
    return TIERS[task.project_id]


def stories(service: ReviewService) -> dict[str, tuple[object, ...]]:
    """All that is to be told of each image, gold copies too: state, truth with its regions, work, and who said what."""
    with service._store.reading() as session:
        return {
            review.image_id: (
                review.state,
                review.revision,
                review.truth and (review.truth.level, review.truth.author, review.truth.finding, review.truth.lesions),
                [(str(work.key), work.assignee, work.status) for work in sorted(review.works, key=lambda w: w.key)],
                review.state is ReviewState.WITHDRAWN
                or [
                    (str(a.key), a.annotation.author, a.verdict, a.reason, a.blind, a.changed, a.annotation.lesions)
                    for a in sorted(review.answers, key=lambda answer: answer.key)
                ],
            )
            for review in session.reviews()
        }


class AnyOrderAtLength(AnyOrder):
    """The same, many times longer."""


class AnyOrderForHours(AnyOrder):
    """The same, as long as one likes."""


_SHORT = settings(max_examples=4, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))
AnyOrder.TestCase.settings = _SHORT
AnyOrderAtLength.TestCase.settings = settings(_SHORT, max_examples=12, stateful_step_count=30)
AnyOrderForHours.TestCase.settings = settings(_SHORT, max_examples=150, stateful_step_count=50)
TestAnyOrder = AnyOrder.TestCase
TestAnyOrderAtLength = pytest.mark.e2e(AnyOrderAtLength.TestCase)
TestAnyOrderForHours = pytest.mark.soak(pytest.mark.timeout(7200)(AnyOrderForHours.TestCase))
