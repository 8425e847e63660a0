"""Gold tasks: known truth among ordinary work, alike to the eye, scored, and never truth again."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from builders_review import (
    ANNA,
    NO_SECOND_READER,
    QA,
    SIZE,
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
from PIL import Image

from converters.annotation import ImageRecord
from converters.label_studio.controls import TaskField, Tier
from review_workflow import seeding
from review_workflow.copies import with_comment
from review_workflow.errors import ReviewError
from review_workflow.gold import GoldScore, brings_gold, unlike
from review_workflow.policy import Gold, Level
from review_workflow.review import WorkKey

_MONTH = 31 * 86_400
POLICY = replace(NO_SECOND_READER, gold=Gold(share=1.0, tiers=(1, 2), level=Level.QA, rest_days=30))
PEOPLE = ((Tier.TECHNICIAN, TECHNICIAN, None), (Tier.DERMATOLOGIST, ANNA, "Accept"), (Tier.QA, QA, "Approve"))


class House:
    """A review whose first image was approved as a melanoma a month ago; the second one waits for the technician."""

    def __init__(self, folder: Path) -> None:
        self.studio, self.clock, self.images = MemoryLabelStudio(), Ticking(), folder / "images"
        self.images.mkdir()
        self.service = a_service(a_store(folder), self.studio, POLICY, self.clock, self.images)
        self.source = self.picture(0)
        self.service.register([self.source])
        for tier, person, verdict in PEOPLE:
            self.service.sync()
            (task,) = self.studio.open_tasks(tier)
            self.answer(task, person.user_id, "mel", verdict)
        self.clock.now += _MONTH
        self.service.register([self.picture(1)])
        self.service.sync()

    def picture(self, number: int) -> ImageRecord:
        record = replace(an_image(number), original_name=f"ISIC_{number:07d}.jpg", patient_id=f"patient-{number}")
        Image.new("RGB", (SIZE.width, SIZE.height), (200, 100 + number, 90)).save(self.images / Path(record.uri).name)
        return record

    def answer(self, task: MemoryTask, user_id: int | None, diagnosis: str, verdict: str | None = None) -> None:
        reason = "Blurred." if verdict == "Send back" else ""
        self.studio.annotate(task.task_id, user_id or 0, a_result([a_lesion(diagnosis)], verdict, reason))
        self.service.sync()

    def open(self, tier: Tier) -> tuple[MemoryTask, MemoryTask]:
        """The ordinary open task of a tier, and the gold one."""
        known = an_image(1).image_id
        tasks = sorted(self.studio.open_tasks(tier), key=lambda task: task.data[TaskField.IMAGE_ID] != known)
        ordinary, gold = tasks
        return ordinary, gold


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.service.order()
    return house


def test_a_gold_task_looks_like_any_other(house: House) -> None:
    ordinary, gold = house.open(Tier.TECHNICIAN)
    alike = (TaskField.STATE, TaskField.ASSIGNEE, TaskField.REASON, TaskField.NOTE, TaskField.SYNTHETIC)
    assert [gold.data[name] for name in alike] == [ordinary.data[name] for name in alike]
    image_id = str(gold.data[TaskField.IMAGE_ID])
    assert gold.data[TaskField.KEY] == f"{image_id}:1:1:1" and len(image_id) == 64
    assert gold.data[TaskField.IMAGE] == f"/data/local-files/?d=images/{image_id}.jpg"
    name = str(gold.data[TaskField.NAME])
    assert name.startswith("ISIC_") and len(name) == len("ISIC_0000000.jpg") and name != house.source.original_name
    assert gold.draft.suggestions == ()


def test_a_gold_copy_has_the_same_pixels_and_another_digest(house: House) -> None:
    _, gold = house.open(Tier.TECHNICIAN)
    copy, source = (house.images / f"{i}.jpg" for i in (gold.data[TaskField.IMAGE_ID], house.source.image_id))
    with Image.open(copy) as one, Image.open(source) as other:
        assert one.tobytes() == other.tobytes()
    assert copy.read_bytes() != source.read_bytes()


def test_work_brings_gold_along_once(house: House) -> None:
    assert len(house.studio.open_tasks(Tier.TECHNICIAN)) == 2
    house.service.order()
    house.service.settle()
    assert len(house.studio.open_tasks(Tier.TECHNICIAN)) == 2


def test_a_long_queue_is_looked_through_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "_LOOK", 1)
    house = House(tmp_path)
    house.service.register([house.picture(2)])
    house.service.sync()
    open_tasks = []
    for _ in range(4):
        house.service.order()
        open_tasks.append(len(house.studio.open_tasks(Tier.TECHNICIAN)))
    assert open_tasks == sorted(open_tasks) and open_tasks[0] == 3
    assert open_tasks[-1] == 3, "the only source was used for the tier's readers already"


def test_an_answer_on_gold_is_scored_and_ends_there(house: House) -> None:
    _, gold = house.open(Tier.TECHNICIAN)
    before, states = house.service.approved(), house.service.states()
    house.answer(gold, TECHNICIAN.user_id, "nv")
    house.service.settle()
    assert house.service.gold() == (GoldScore(TECHNICIAN.email, Tier.TECHNICIAN, 1, 0, 1.0, 1.0, 0.0, 1, 1),)
    assert house.studio.open_tasks(Tier.DERMATOLOGIST) == []
    assert (house.service.approved(), house.service.states()) == (before, states)
    assert house.service.review(str(gold.data[TaskField.IMAGE_ID])).truth is None


def test_the_readers_own_history_does_not_tell_gold_apart(house: House) -> None:
    for task in house.open(Tier.TECHNICIAN):
        house.answer(task, TECHNICIAN.user_id, "nv")
    own = [entry.happened for entry in house.service.history(actor=TECHNICIAN.email)]
    assert own == ["labelled"] * 3


def test_an_edited_answer_on_gold_is_scored_anew(house: House) -> None:
    _, gold = house.open(Tier.TECHNICIAN)
    house.answer(gold, TECHNICIAN.user_id, "nv")
    (annotation,) = gold.annotations
    house.studio.edit(annotation, TECHNICIAN.user_id or 0, a_result([a_lesion("mel")]))
    house.service.sync()
    assert [found.diagnosis_share for found in house.service.gold()] == [1.0]


def test_a_dermatologists_gold_starts_from_what_the_technician_said_and_is_for_the_same_reader(house: House) -> None:
    house.answer(house.open(Tier.TECHNICIAN)[0], TECHNICIAN.user_id, "mel")
    house.service.order()
    ordinary, gold = house.open(Tier.DERMATOLOGIST)
    alike = (TaskField.STATE, TaskField.ASSIGNEE, TaskField.REASON, TaskField.NOTE)
    assert [gold.data[name] for name in alike] == [ordinary.data[name] for name in alike]
    assert [s.model_version for s in gold.draft.suggestions] == [s.model_version for s in ordinary.draft.suggestions]
    house.answer(gold, ANNA.user_id, "mel", "Accept")
    assert (found := house.service.gold()[0]).diagnosis_share == 1.0
    assert (found.author, found.tier, found.missed_malignant) == (ANNA.email, Tier.DERMATOLOGIST, 0)


def test_sending_gold_back_is_counted_and_reaches_nobody(house: House) -> None:
    house.answer(house.open(Tier.TECHNICIAN)[0], TECHNICIAN.user_id, "mel")
    house.service.order()
    _, gold = house.open(Tier.DERMATOLOGIST)
    waiting = len(house.studio.open_tasks(Tier.TECHNICIAN))
    house.answer(gold, ANNA.user_id, "mel", "Send back")
    assert [(found.tasks, found.sent_back, found.box_f1) for found in house.service.gold()] == [(1, 1, None)]
    assert len(house.studio.open_tasks(Tier.TECHNICIAN)) == waiting


def test_gold_cannot_be_ordered_back(house: House) -> None:
    _, gold = house.open(Tier.TECHNICIAN)
    house.answer(gold, TECHNICIAN.user_id, "nv")
    with pytest.raises(ReviewError, match="gold task"):
        house.service.send_back(str(gold.data[TaskField.IMAGE_ID]), QA, Tier.TECHNICIAN, "Again.")


def test_a_withdrawn_patients_gold_goes_with_them(house: House) -> None:
    _, gold = house.open(Tier.TECHNICIAN)
    assert set(house.service.withdraw("patient-0")) == {house.source.image_id, gold.data[TaskField.IMAGE_ID]}
    house.service.settle()
    assert [task.data[TaskField.NAME] for task in house.studio.all_tasks.values()] == ["ISIC_0000001.jpg"]
    assert house.service.gold() == ()


def test_images_rest_before_they_come_back_as_gold(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.clock.now -= 2 * 86_400
    house.service.order()
    assert len(house.studio.open_tasks(Tier.TECHNICIAN)) == 1


def test_the_audit_log_of_gold_verifies(house: House) -> None:
    for task in house.open(Tier.TECHNICIAN):
        house.answer(task, TECHNICIAN.user_id, "nv")
    assert house.service.verify_audit() == ()


def test_the_share_of_gold_is_the_policys() -> None:
    policy = replace(NO_SECOND_READER, gold=Gold(share=0.1, tiers=(2,)))
    keys = [WorkKey(f"{number}", Tier.DERMATOLOGIST, 1, 1) for number in range(3000)]
    assert 0.08 < sum(brings_gold(key, policy) for key in keys) / len(keys) < 0.12
    assert not any(brings_gold(replace(key, tier=Tier.TECHNICIAN), policy) for key in keys[:100])
    assert not any(brings_gold(replace(key, round=2), policy) for key in keys[:100])


@pytest.mark.parametrize(
    ("name", "pattern"), [("ISIC_0024306.jpg", "ISIC_"), ("12.png", ""), ("no digits.jpg", "no digits.jpg")]
)
def test_a_copy_has_a_name_of_the_same_pattern(name: str, pattern: str) -> None:
    other = unlike(name, lambda other: other == name, "seed")
    assert other.startswith(pattern) and len(other) == len(name)
    assert (other == name) == (pattern == name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_comment_changes_bytes_and_no_pixel(kind: str) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((31, 17), 40).convert("RGB").save(buffer, kind)
    salted = with_comment(buffer.getvalue(), "ab" * 32)
    assert salted is not None and salted != buffer.getvalue()
    with Image.open(io.BytesIO(salted)) as one, Image.open(buffer) as other:
        one.load()
        assert one.tobytes() == other.tobytes()
    assert with_comment(b"GIF89a", "ab") is None
