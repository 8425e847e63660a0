"""Label Studio and the review database brought into step: what changed there comes in, what follows goes out.

Webhooks are hints that are followed at once; the pass over everything changed since the cursor is what counts.
One process at a time does either, by a lease in the database.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from converters.errors import ConversionError
from converters.label_studio.controls import Tier
from review_workflow import submissions, webhook_loss
from review_workflow.decisions import Setting, apply
from review_workflow.errors import BusyError, ConflictError, LabelStudioError, ReviewError
from review_workflow.label_studio import LabelStudioTasks, SubmittedAnnotation, TaskSnapshot
from review_workflow.outbox import Outbox
from review_workflow.people import Person
from review_workflow.queue_order import QueueOrder
from review_workflow.review import Event, WorkKey
from review_workflow.store import Session, Store, TaskHint

log = logging.getLogger(__name__)
_LEASE, _LEASE_SECONDS, PATIENCE = "sync", 120.0, 60.0
_OVERLAP = timedelta(seconds=10)
_HINTS = 200
_TRIES = 5


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one pass did: tasks looked at, annotations that counted or were refused, tasks written, and what remains.

    `more` tells that ordering the queues has further to go.
    """

    looked_at: int = 0
    counted: int = 0
    refused: int = 0
    delivered: int = 0
    waiting: int = 0
    more: bool = False

    def plus(self, other: SyncReport) -> SyncReport:
        """Both passes together."""
        return SyncReport(
            self.looked_at + other.looked_at,
            self.counted + other.counted,
            self.refused + other.refused,
            self.delivered + other.delivered,
            other.waiting,
            other.more,
        )


class Sync:
    """The traffic between one Label Studio and one review database."""

    def __init__(
        self,
        store: Store,
        gateway: LabelStudioTasks,
        setting: Callable[[Session], Setting],
        clock: Callable[[], float],
        queues: QueueOrder,
        seed: Callable[[], int] = lambda: 0,
        refuse: Callable[[int, int], None] = lambda project_id, hints: None,
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._setting = setting
        self._clock = clock
        self._queues = queues
        self._seed = seed
        self._refuse = refuse
        self._owner = ""
        self._outbox = Outbox(store, gateway, setting, clock, self.project, self._keep_lease)

    def run(self, full: bool = False, patience: float = PATIENCE) -> SyncReport:
        """Everything in and everything out, until nothing is left to deliver; raises BusyError after `patience` s."""
        with self._lease(patience):
            report = self._take_hinted().plus(self._take_changed(full))
            if full:
                self._restore_deleted()
            return report.plus(self._deliver())

    def follow_hints(self) -> SyncReport:
        """Only what webhooks hinted at, and what follows from it; raises BusyError while another process is at it."""
        with self._store.reading() as session:
            if not session.hints(1) and not session.due(self._clock(), 1):
                return SyncReport()
        with self._lease(0.0):
            return self._take_hinted().plus(self._deliver())

    def order(self, seconds: float) -> SyncReport:
        """Puts gold tasks among the queues; reads what the model says of unanswered images, and orders by it.

        Ends after about so many seconds; the report says whether there is more, with which the next pass goes on.
        """
        with self._lease(PATIENCE):
            self._seed()
            project_id, deadline, report = self.project(Tier.TECHNICIAN), time.monotonic() + seconds, SyncReport()
            while True:
                step = self._queues.step(project_id, self._clock)
                report = report.plus(SyncReport(looked_at=step.changed)).plus(self._deliver())
                if not step.more or time.monotonic() >= deadline:
                    return replace(report, more=step.more)

    def project(self, tier: Tier) -> int:
        """Label Studio's id of a tier's project; raises LabelStudioError before the first set-up."""
        with self._store.reading() as session:
            found = session.fact(project_fact(tier))
        if found is None:
            raise LabelStudioError(f"project of tier {int(tier)}", None, "a project", "Run `dermloop review setup`.")
        return int(found)

    def _projects(self) -> Mapping[int, Tier]:
        return {self.project(tier): tier for tier in Tier}

    @contextmanager
    def _lease(self, patience: float) -> Iterator[None]:
        deadline = time.monotonic() + patience
        owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex}"
        while not self._take_lease(owner):
            if time.monotonic() >= deadline:
                raise BusyError("sync", "another process is at it", "a free moment", "Wait, or try again.")
            time.sleep(0.05)
        self._owner = owner
        try:
            yield
        finally:
            with self._store.writing() as session:
                session.give_lease(_LEASE, owner)

    def _keep_lease(self) -> None:
        if not self._take_lease(self._owner):
            raise BusyError(
                "sync", "the lease was lost to another process", "a faster pass", "Nothing was lost; sync again."
            )

    def _take_lease(self, owner: str) -> bool:
        with self._store.writing() as session:
            holder = session.lease_holder(_LEASE)
            if holder is not None and _is_dead(holder):
                session.give_lease(_LEASE, holder)
            return session.take_lease(_LEASE, owner, self._clock(), _LEASE_SECONDS)

    def _deliver(self) -> SyncReport:
        delivered = self._outbox.drain()
        with self._store.reading() as session:
            return SyncReport(delivered=delivered, waiting=session.outbox_size())

    # in

    def _take_hinted(self) -> SyncReport:
        known, report = self._projects(), SyncReport()
        while hints := self._read_hints():
            found: list[TaskSnapshot] = []
            self._refuse_foreign(hints, known)
            for project_id in sorted({hint.project_id for hint in hints} & set(known)):
                wanted = sorted({hint.task_id for hint in hints if hint.project_id == project_id})
                present = list(self._gateway.tasks(project_id, wanted))
                self._restore(set(wanted) - {task.task_id for task in present})
                found += present
            report = report.plus(self._take_all(found, hinted=True))
            with self._store.writing() as session:
                webhook_loss.note(session, self._clock(), told={hint.task_id for hint in hints})
                session.clear_hints(hints)
        return report

    def _refuse_foreign(self, hints: Sequence[TaskHint], known: Mapping[int, Tier]) -> None:
        """Puts on record that webhooks told of projects that are none of the review's."""
        foreign = Counter(hint.project_id for hint in hints if hint.project_id not in known)
        for project_id, count in sorted(foreign.items()):
            self._refuse(project_id, count)

    def _read_hints(self) -> tuple[TaskHint, ...]:
        with self._store.reading() as session:
            return session.hints(_HINTS)

    def _restore(self, gone: set[int]) -> None:
        if gone:
            with self._store.reading() as session:
                keys = session.keys_of(gone)
            self._make_again(keys)

    def _make_again(self, keys: Sequence[WorkKey]) -> None:
        if not keys:
            return
        with self._store.writing() as session:
            for key in keys:
                session.record_events(key.image_id, [_task_deleted(key)], "", self._clock())
            session.forget_places(keys)
            session.enqueue(keys, self._clock())

    def _restore_deleted(self) -> None:
        """Finds waiting work whose task is gone from Label Studio, whether or not a webhook told of it."""
        for project_id, tier in self._projects().items():
            with self._store.reading() as session:
                waiting = session.waiting_tasks(tier)
            present = self._gateway.task_keys(project_id) if waiting else {}
            self._make_again([key for task_id, key in waiting if present.get(task_id) != str(key)])

    def _take_changed(self, full: bool) -> SyncReport:
        """What changed since each project's cursor; the cursors move on once all of it was taken."""
        found: list[TaskSnapshot] = []
        cursors: dict[str, datetime] = {}
        for project_id in self._projects():
            name = f"cursor:{project_id}"
            newest = None if full else self._cursor(name)
            for task in self._gateway.changed(project_id, newest - _OVERLAP if newest else None):
                found.append(task)
                if task.updated_at is not None:
                    newest = max(newest, task.updated_at) if newest else task.updated_at
            if newest is not None:
                cursors[name] = newest
        report = self._take_all(found)
        with self._store.writing() as session:
            for name, moment in cursors.items():
                session.put_fact(name, moment.isoformat())
        return report

    def _cursor(self, name: str) -> datetime | None:
        with self._store.reading() as session:
            found = session.fact(name)
        return datetime.fromisoformat(found) if found else None

    def _take_all(self, tasks: Sequence[TaskSnapshot], hinted: bool = False) -> SyncReport:
        """Takes what is new in the order in which it was said, whichever task or project it is on."""
        unseen = [(task, annotation) for task in tasks for annotation in self._unseen(task)]
        unseen.sort(key=lambda pair: (_moment(pair[1]), pair[1].annotation_id))
        if not hinted:
            with self._store.writing() as session:
                webhook_loss.note(session, self._clock(), found={task.task_id for task, _ in unseen})
        people = self._people() if unseen else {}
        outcomes: Counter[str] = Counter()
        for number, (task, annotation) in enumerate(unseen, start=1):
            outcomes[self._take(task, annotation, people)] += 1
            if number % _HINTS == 0:
                self._keep_lease()
        return SyncReport(len(tasks), outcomes["counted"], outcomes["refused"])

    def _unseen(self, task: TaskSnapshot) -> list[SubmittedAnnotation]:
        if not task.annotations:
            return []
        with self._store.reading() as session:
            seen = session.seen(a.annotation_id for a in task.annotations)
        return [a for a in task.annotations if seen.get(a.annotation_id) != submissions.source(a)]

    def _people(self) -> Mapping[int, Person]:
        with self._store.reading() as session:
            people = session.people()
        if any(person.user_id is None for person in people):
            people = self._meet(people)
        return {person.user_id: person for person in people if person.user_id is not None}

    def _meet(self, people: Sequence[Person]) -> tuple[Person, ...]:
        ids = {email.casefold(): user_id for user_id, email in self._gateway.users().items()}
        met = tuple(replace(p, user_id=p.user_id or ids.get(p.email.casefold())) for p in people)
        with self._store.writing() as session:
            for before, after in zip(people, met, strict=True):
                if before != after:
                    session.put_person(after)
        return met

    def _take(self, task: TaskSnapshot, annotation: SubmittedAnnotation, people: Mapping[int, Person]) -> str:
        for _ in range(_TRIES):
            try:
                with self._store.writing() as session:
                    outcome = self._decide(session, task, annotation, people)
                    session.mark_seen(annotation.annotation_id, submissions.source(annotation), outcome)
                    return outcome
            except ConflictError as error:
                conflict = error
        raise conflict

    def _decide(
        self, session: Session, task: TaskSnapshot, annotation: SubmittedAnnotation, people: Mapping[int, Person]
    ) -> str:
        now, setting = self._clock(), self._setting(session)
        try:
            key = WorkKey.parse(task.key)
            record = session.record(key.image_id)
        except ReviewError as error:
            event = _note("foreign task", people, annotation, reason=str(error))
            session.record_events("", [event], setting.policy.digest, now)
            return "refused"
        if annotation.cancelled:
            event = _note("skipped", people, annotation, key=key)
            session.record_events(key.image_id, [event], setting.policy.digest, now)
            return "skipped"
        review = session.review(key.image_id)
        try:
            command = submissions.command(key, annotation, record, people, setting.taxonomy)
        except ConversionError as error:
            reason = submissions.complaint(error)
            event = _note("refused", people, annotation, key=key, reason=reason)
            work = review.work(key)
            told = review.with_work(replace(work, told=reason)) if work else review
            session.save(review, told, [event], setting.policy.digest, now)
            return "refused"
        decision = apply(review, command, setting)
        if decision.events:
            session.save(review, decision.review, decision.events, setting.policy.digest, now)
        return "refused" if decision.refusal else "counted"


def project_fact(tier: Tier) -> str:
    """Name of the fact that holds a tier's project id."""
    return f"project:{int(tier)}"


def _is_dead(holder: str) -> bool:
    """Whether a lease belongs to a process of this machine that is no more."""
    host, _, rest = holder.partition("/")
    pid = rest.partition("/")[0]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _moment(annotation: SubmittedAnnotation) -> float:
    moment = annotation.updated_at or annotation.created_at
    return moment.timestamp() if moment else 0.0


def _task_deleted(key: WorkKey) -> Event:
    return Event("task deleted", "Label Studio", "service", tier=key.tier, key=key, reason="made again where needed")


def _note(
    happened: str,
    people: Mapping[int, Person],
    annotation: SubmittedAnnotation,
    key: WorkKey | None = None,
    reason: str = "",
) -> Event:
    person = people.get(annotation.actor or 0)
    return Event(
        happened,
        actor=person.email if person else f"user {annotation.actor}",
        role=person.role.value if person else "unknown",
        tier=key.tier if key else None,
        key=key,
        reason=reason,
        source=submissions.source(annotation),
    )
