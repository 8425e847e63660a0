"""What an image's way through the tiers must be, told once more in twenty lines, and held against the service.

One reader, nothing sampled: what two call benign is approved at once, what either calls malignant goes to QA.
Everybody answers in random order while webhooks get lost and doubled, and the service dies anywhere; strangers answer
too and move nothing.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from builders_review import (
    ANNA,
    ENGINEER,
    NO_SECOND_READER,
    PROJECTS,
    QA,
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
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from converters.label_studio.controls import Tier
from review_workflow.states import ReviewState
from review_workflow.webhooks import Hint

IMAGES = [an_image(number) for number in range(4)]
PEOPLE = (TECHNICIAN, ANNA, QA, ENGINEER)
BY = {Tier.TECHNICIAN: TECHNICIAN, Tier.DERMATOLOGIST: ANNA, Tier.QA: QA}
SAYS = {
    Tier.TECHNICIAN: [None],
    Tier.DERMATOLOGIST: ["Accept", "Correct", "Send back", "Escalate"],
    Tier.QA: ["Approve", "Correct", "Send back", "Exclude"],
}
NEXT = {
    None: ReviewState.LABELLED,
    "Send back": ReviewState.SENT_BACK,
    "Escalate": ReviewState.AGREED,
    "Approve": ReviewState.APPROVED,
    "Exclude": ReviewState.EXCLUDED,
}


def expected(tier: Tier, verdict: str | None, suspicious: bool) -> ReviewState:
    if verdict in NEXT:
        return NEXT[verdict]
    return ReviewState.AGREED if tier is Tier.DERMATOLOGIST and suspicious else ReviewState.APPROVED


class AgainstASimpleModel(RuleBasedStateMachine):
    """The service beside a dictionary of states and one of approved diagnoses."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = FragileStore(a_store(Path(self.folder.name), PEOPLE)._engine)
        self.studio, self.clock = MemoryLabelStudio(), Ticking()
        self.state = {image.image_id: ReviewState.IMPORTED for image in IMAGES}
        self.truth: dict[str, str] = {}
        self.said: dict[tuple[str, Tier], str] = {}
        self.begin()
        self.service.register(IMAGES)
        self.service.sync()

    def begin(self) -> None:
        self.service = a_service(self.store, self.studio, NO_SECOND_READER, self.clock)

    @rule(data=st.data(), diagnosis=st.sampled_from(["nv", "mel"]), hints=st.integers(0, 2))
    def answer(self, data: st.DataObject, diagnosis: str, hints: int) -> None:
        """Somebody does one thing that is theirs to do."""
        found = [(tier, task) for tier, person in BY.items() for task in self.studio.open_tasks(tier, person)]
        if not found:
            return
        tier, task = data.draw(st.sampled_from(sorted(found, key=lambda pair: pair[1].task_id)))
        verdict = data.draw(st.sampled_from(SAYS[tier]))
        self.say(task, BY[tier].user_id or 0, diagnosis, verdict, hints)
        image = str(task.data["image_id"])
        self.said[image, tier] = diagnosis
        suspicious = "mel" in (self.said[image, Tier.TECHNICIAN], self.said.get((image, Tier.DERMATOLOGIST)))
        self.state[image] = expected(tier, verdict, suspicious)
        self.truth.pop(image, None)
        if self.state[image] is ReviewState.APPROVED:
            self.truth[image] = diagnosis

    @rule(data=st.data(), user=st.sampled_from([STRANGER, ENGINEER.user_id]), hints=st.integers(0, 2))
    def intrude(self, data: st.DataObject, user: int, hints: int) -> None:
        """Somebody without a role answers work that was answered already, and that nobody waits for."""
        found = [task for task in self.studio.all_tasks.values() if task.annotations]
        if found:
            task = data.draw(st.sampled_from(sorted(found, key=lambda task: task.task_id)))
            tier = next(tier for tier, project in PROJECTS.items() if project == task.project_id)
            self.say(task, user, "mel", SAYS[tier][-1], hints)

    def say(self, task: MemoryTask, user: int, diagnosis: str, verdict: str | None, hints: int) -> None:
        self.studio.annotate(task.task_id, user, a_result([a_lesion(diagnosis)], verdict, "Because."))
        for _ in range(hints):
            self.service.receive(Hint(task.project_id, (task.task_id,), "ANNOTATION_CREATED"))

    @rule(full=st.booleans())
    def pass_by(self, full: bool) -> None:
        """The timer's pass, or only what the webhooks told."""
        self.service.sync(True) if full else self.service.follow_hints()

    @rule(steps=st.integers(0, 12))
    def die(self, steps: int) -> None:
        """The service is killed in the middle of a pass, and started again."""
        self.store.countdown = steps
        with suppress(Crash):
            self.service.sync()
        self.store.countdown = None
        self.begin()

    @rule()
    def settle(self) -> None:
        """A quiet pass brings the service to where the model is, whatever happened before."""
        self.clock.now += 600
        self.service.settle()
        found = {image.image_id: self.service.review(image.image_id).state for image in IMAGES}
        assert found == self.state
        approved = {record.image_id: truth[0].lesions[0].diagnosis for record, truth in self.service.approved()}
        assert approved == self.truth
        assert self.service.verify_audit() == ()

    def teardown(self) -> None:
        if hasattr(self, "service"):
            self.settle()
            self.store.close()
            self.folder.cleanup()


AgainstASimpleModel.TestCase.settings = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAgainstASimpleModel = AgainstASimpleModel.TestCase
