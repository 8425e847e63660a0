"""Builders for the dashboard: a service with a little or with much behind it, its application, and a served address."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from builders_review import (
    ANNA,
    BEN,
    QA,
    SIZE,
    TECHNICIAN,
    TWO_READERS,
    MemoryLabelStudio,
    MemoryTask,
    Ticking,
    a_lesion,
    a_result,
    a_service,
    a_store,
    an_image,
)
from flask import Flask
from PIL import Image
from pydantic import SecretStr
from werkzeug.serving import make_server

from converters.annotation import Origin
from converters.label_studio.controls import TaskField, Tier
from review_workflow.app import create_app
from review_workflow.errors import ReviewError
from review_workflow.people import Person
from review_workflow.policy import Gold, Policy, Quality
from review_workflow.service import ReviewService
from review_workflow.settings import ReviewSettings
from review_workflow.training_jobs import EXTENSION, TrainingJob

_DAY = 86_400.0
BUSY = replace(TWO_READERS, quality=Quality(share_blind=0.3), gold=Gold(share=0.4, rest_days=3))


class House:
    """Knows everybody's password: their own address."""

    def knows(self, email: str, password: str) -> bool:
        return email == password


@dataclass
class MemoryJobs:
    """Retrainings kept in memory; what was cancelled and asked for is remembered."""

    jobs: list[TrainingJob] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def newest(self, limit: int) -> Sequence[TrainingJob]:
        return self.jobs[:limit]

    def cancel(self, job_id: str) -> None:
        if not any(job.id == job_id and job.active for job in self.jobs):
            raise ReviewError(f"job {job_id}", "over", "a waiting or running job", "Nothing is left to cancel.")
        self.cancelled.append(job_id)

    def ask(self, reason: str, by: str) -> str:
        self.jobs.insert(0, a_job("new", state="pending", reason=reason, requested_by=by))
        return "new"


def a_job(job_id: str, **changes: object) -> TrainingJob:
    job = TrainingJob(
        id=job_id,
        state="running",
        reason="52 newly approved labels (enough newly approved labels).",
        requested_by="schedule",
        asked="2026-01-01 12:00:00",
        started="2026-01-01 12:00:05",
        finished="",
        detail="detector: epoch 5 of 20",
        stages=("freeze",),
        done=0.24,
        active=True,
    )
    return replace(job, **changes)  # type: ignore[arg-type]


def a_home(folder: Path, images: int = 1) -> Path:
    """A home folder with plain pictures."""
    (folder / "images").mkdir()
    for number in range(images):
        colour = (205 - number, 160 + number, 130)
        Image.new("RGB", (SIZE.width, SIZE.height), colour).save(folder / an_image(number).uri)
    return folder


def a_disputed_review(home: Path) -> ReviewService:
    """One image, called a nevus by the technician and one reader, a melanoma by the other."""
    studio = MemoryLabelStudio()
    service = a_service(a_store(home), studio, TWO_READERS, Ticking())
    service.register([an_image()])
    said = (
        (Tier.TECHNICIAN, TECHNICIAN, "nv", None),
        (Tier.DERMATOLOGIST, ANNA, "nv", "Accept"),
        (Tier.DERMATOLOGIST, BEN, "mel", "Correct"),
    )
    for tier, person, diagnosis, verdict in said:
        service.sync()
        (task,) = studio.open_tasks(tier, person)
        studio.annotate(task.task_id, person.user_id or 0, a_result([a_lesion(diagnosis)], verdict))
    service.sync()
    return service


@dataclass
class BusyHouse:
    """A review of several weeks: two models, disputes, a blind arm, gold tasks, and work that still waits."""

    home: Path
    policy: Policy = BUSY

    def play(self, images: int) -> ReviewService:
        """The service after all that; the last images are still on their way."""
        self.studio, self.clock = MemoryLabelStudio(), Ticking()
        self.service = a_service(a_store(self.home), self.studio, self.policy, self.clock, self.home / "images")
        for number in range(images):
            self.clock.now += _DAY * 0.8
            self.studio.offset = self.clock.now - 1_700_000_000
            self.service.register([an_image(number)])
            self._work(number, tiers=3 if number < images - 6 else number % 3)
            self.service.order()
        self.service.settle()
        return self.service

    def _work(self, number: int, tiers: int) -> None:
        """Answers what is open of one image up to a tier, and every gold task."""
        earlier = {an_image(other).image_id for other in range(number)}
        for tier, people in ((Tier.TECHNICIAN, (TECHNICIAN,)), (Tier.DERMATOLOGIST, (ANNA, BEN)), (Tier.QA, (QA,))):
            if int(tier) <= tiers:
                self.service.sync()
                for person in people:
                    for task in self.studio.open_tasks(tier, person):
                        if task.data[TaskField.IMAGE_ID] not in earlier:
                            self._answer(task, tier, person, number)
        self.service.sync()

    def _answer(self, task: MemoryTask, tier: Tier, person: Person, number: int) -> None:
        truth = ("nv", "mel", "bkl", "nv")[int(str(task.data[TaskField.IMAGE_ID]), 16) % 4]
        wrong = (tier is Tier.TECHNICIAN and number % 5 == 0) or (person is BEN and number % 4 == 1)
        diagnosis = "nv" if wrong else truth
        origin = (Origin.PREDICTION, Origin.PREDICTION_CHANGED, Origin.MANUAL)[
            number % 3 if number < 12 else number % 2
        ]
        lesion = replace(a_lesion(diagnosis, 10.0 + 2 * (person is BEN)), origin=origin)
        verdict = {Tier.TECHNICIAN: None, Tier.DERMATOLOGIST: "Accept", Tier.QA: "Approve"}[tier]
        model = None if number % 6 == 5 else ("loop-1f3a90" if number < 12 else "loop-77c2de")
        started = model if tier is Tier.TECHNICIAN else None
        seconds = (
            {Tier.TECHNICIAN: 34.0, Tier.DERMATOLOGIST: 18.0, Tier.QA: 25.0}[tier] + number - 9 * (model is not None)
        )
        result = a_result([lesion], verdict)
        self.studio.annotate(task.task_id, person.user_id or 0, result, lead_time=seconds, started_from=started)


def an_app(home: Path, service: ReviewService) -> Flask:
    """The application with sign-in by address and a queue of retrainings; stop its background thread in the end."""
    settings = ReviewSettings(
        home=home,
        label_studio_token=SecretStr("token"),
        webhook_secret=SecretStr("hook"),
        session_secret=SecretStr("session"),
        sync_seconds=3600,
    )
    app = create_app(settings, service, House())
    app.extensions[EXTENSION] = MemoryJobs()
    return app


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """The address where an application answers."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    app.extensions["background"].stop()
