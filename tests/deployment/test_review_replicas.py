"""Two replicas of the review service on one PostgreSQL: webhooks and verdicts at once, nothing lost, nothing twice."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from builders_compose import example_environment, service
from builders_postgresql import PostgreSQL
from builders_review import (
    ANNA,
    BEN,
    PROJECTS,
    TECHNICIAN,
    MemoryLabelStudio,
    MemoryTask,
    a_result,
    a_service,
    an_image,
    prepare,
)
from sqlalchemy import event
from werkzeug.serving import make_server

from converters.geometry import ImageSize
from converters.label_studio.controls import Tier
from review_workflow.app import create_app
from review_workflow.label_studio import TaskSnapshot
from review_workflow.presentation import TaskDraft
from review_workflow.project_setup import SECRET_HEADER
from review_workflow.service import ReviewService
from review_workflow.settings import read
from review_workflow.states import ReviewState
from review_workflow.store import Store, open_store

IMAGES = 24
READERS = (
    (TECHNICIAN, Tier.TECHNICIAN, None),
    (ANNA, Tier.DERMATOLOGIST, "Accept"),
    (BEN, Tier.DERMATOLOGIST, "Accept"),
)


class SharedLabelStudio(MemoryLabelStudio):
    """The Label Studio of both replicas: one call at a time, as its database has it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()

    def create_tasks(self, project_id: int, drafts: Sequence[tuple[TaskDraft, ImageSize]]) -> tuple[int, ...]:
        with self._lock:
            return super().create_tasks(project_id, drafts)

    def find_task(self, project_id: int, key: str) -> int | None:
        with self._lock:
            return super().find_task(project_id, key)

    def tasks(self, project_id: int, task_ids: Sequence[int]) -> Iterator[TaskSnapshot]:
        with self._lock:
            return iter(list(super().tasks(project_id, task_ids)))

    def changed(self, project_id: int, since: Any) -> Iterator[TaskSnapshot]:
        with self._lock:
            return iter(list(super().changed(project_id, since)))

    def suggestions(self, project_id: int, since: Any, after: int = 0) -> Iterator[Any]:
        with self._lock:
            return iter(list(super().suggestions(project_id, since, after)))

    def annotate(self, task_id: int, user_id: int, result: bytes, cancelled: bool = False) -> int:
        with self._lock:
            return super().annotate(task_id, user_id, result, cancelled)

    def open_tasks(self, tier: Tier, person: Any = None) -> list[MemoryTask]:
        with self._lock:
            return super().open_tasks(tier, person)


@dataclass
class Replicas:
    """The addresses of the replicas, what they share, and the secret of their webhooks."""

    studio: SharedLabelStudio
    service: ReviewService
    addresses: list[str]
    secret: str

    def webhook(self, task: MemoryTask) -> None:
        """Hints at a task, at any replica; one in ten hints is lost, one in ten comes twice."""
        body = {
            "action": "ANNOTATION_CREATED",
            "project": {"id": task.project_id},
            "task": {"id": task.task_id},
        }
        for _ in range(random.choices((0, 1, 2), (1, 8, 1))[0]):
            address = random.choice(self.addresses)
            headers = {SECRET_HEADER: self.secret}
            answer = requests.post(f"{address}/webhook", orjson.dumps(body), headers=headers, timeout=30)
            assert answer.status_code == 200, answer.text


@contextmanager
def opened(database: str) -> Iterator[Store]:
    """A store whose connections all are closed at the end, those too that a request's thread still held."""
    store, connections = open_store(database), list[Any]()
    event.listen(store._engine, "connect", lambda connection, _: connections.append(connection))
    try:
        yield store
    finally:
        store.close()
        for connection in connections:
            connection.close()


@contextmanager
def replica(database: str, studio: SharedLabelStudio, home: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a review service with compose.yaml's settings, on a database and a Label Studio of the test."""
    given = {name: str(value) for name, value in service("review", environment)["environment"].items()}
    names = {f"DERMLOOP_REVIEW_{field.upper()}": field for field in read().__class__.model_fields}
    own = {names[name]: value for name, value in given.items() if name in names}
    settings = read(**own | {"home": home, "database_url": database})
    with opened(settings.database) as store:
        app = create_app(settings, a_service(store, studio, clock=time.time))  # type: ignore[arg-type]
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            app.extensions["background"].stop(120)


@pytest.fixture
def replicas(server: PostgreSQL, tmp_path: Path) -> Iterator[Replicas]:
    environment = example_environment()
    database = server.new_database()
    studio = SharedLabelStudio()
    with ExitStack() as stack:
        store = stack.enter_context(opened(database))
        prepare(store)
        own = a_service(store, studio, clock=time.time)  # type: ignore[arg-type]
        addresses = [stack.enter_context(replica(database, studio, tmp_path, environment)) for _ in range(2)]
        yield Replicas(studio, own, addresses, environment["DERMLOOP_REVIEW_WEBHOOK_SECRET"])


def until(holds: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read_all(replicas: Replicas, person: Any, tier: Tier, verdict: str | None, stop: threading.Event) -> None:
    """Answers whatever waits in a tier, as several people of the role at once would."""
    seen: set[int] = set()
    while not stop.is_set():
        waiting = [task for task in replicas.studio.open_tasks(tier, person) if task.task_id not in seen]
        for task in waiting[:3]:
            seen.add(task.task_id)
            replicas.studio.annotate(task.task_id, person.user_id, a_result(verdict=verdict))
            replicas.webhook(task)
        time.sleep(0.01)


def test_every_verdict_counts_once_whichever_replica_hears_of_it(replicas: Replicas) -> None:
    stop = threading.Event()
    readers = [
        threading.Thread(target=read_all, args=(replicas, person, tier, verdict, stop))
        for person, tier, verdict in READERS
    ]
    registering = threading.Thread(target=replicas.service.register, args=([an_image(n) for n in range(IMAGES)],))
    for thread in (*readers, registering):
        thread.start()
    try:
        until(lambda: replicas.service.states() == {ReviewState.APPROVED.value: IMAGES})
    finally:
        stop.set()
        for thread in (*readers, registering):
            thread.join()
    until(lambda: (replicas.service.status().outbox, replicas.service.status().inbox) == (0, 0))
    assert replicas.service.verify_audit() == ()
    happened = Counter((entry.image_id, entry.happened) for entry in replicas.service.history() if entry.image_id)
    counted = Counter(kind for _, kind in happened)
    assert set(happened.values()) == {1}, [entry for entry, count in happened.items() if count > 1]
    assert counted["labelled"] == counted["approved"] == IMAGES
    keys = Counter((task.project_id, task.data["key"]) for task in replicas.studio.all_tasks.values())
    assert set(keys.values()) == {1}
    assert Counter(project for project, _ in keys)[PROJECTS[Tier.TECHNICIAN]] == IMAGES


@pytest.mark.soak
def test_a_replica_that_stops_leaves_its_work_to_the_other(server: PostgreSQL, tmp_path: Path) -> None:
    database, studio, given = server.new_database(), SharedLabelStudio(), example_environment()
    store = open_store(database)
    prepare(store)
    own = a_service(store, studio, clock=time.time)  # type: ignore[arg-type]
    with replica(database, studio, tmp_path, given):
        with replica(database, studio, tmp_path, given):
            own.register([an_image(number) for number in range(4)])
        until(lambda: len(studio.open_tasks(Tier.TECHNICIAN)) == 4)
        for task in studio.open_tasks(Tier.TECHNICIAN):
            studio.annotate(task.task_id, TECHNICIAN.user_id or 0, a_result())
        until(lambda: len(studio.open_tasks(Tier.DERMATOLOGIST)) == 4)
    assert own.verify_audit() == ()
    own.close()
