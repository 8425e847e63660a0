"""What can be done inside one transaction of the review database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import orjson
from sqlalchemy import Connection, delete, func, insert, select, update

from converters import manifest
from converters.annotation import ImageRecord
from converters.label_studio.controls import Tier
from review_workflow.errors import ConflictError, UnknownImageError
from review_workflow.people import Person, Role, Roster
from review_workflow.review import Answer, Event, Review, Work, WorkKey, WorkStatus
from review_workflow.states import ReviewState
from review_workflow.store import audit, codec, schema
from review_workflow.store.audit import AuditEntry, AuditProblem

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A piece of work whose Label Studio task has to be brought up to date; `attempts` counts earlier tries."""

    id: int
    key: WorkKey
    attempts: int


@dataclass(frozen=True, slots=True)
class TaskHint:
    """A webhook's hint that something happened to a task."""

    id: int
    project_id: int
    task_id: int


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """Where a piece of work lies in Label Studio and a digest of what was last written there."""

    task_id: int | None
    pushed: str | None


class Session:
    """Reads and writes on one open connection; commit and rollback belong to whoever opened it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # images and reviews

    def add_image(self, record: ImageRecord, now: float) -> bool:
        """Whether the image was new; a known one is left as it was."""
        if self._connection.execute(select(1).where(schema.images.c.image_id == record.image_id)).first():
            return False
        row = {
            "image_id": record.image_id,
            "patient_id": record.patient_id,
            "record": orjson.dumps(manifest.encode_record(record)).decode(),
            "registered_at": now,
        }
        self._connection.execute(insert(schema.images).values(row))
        return True

    def record(self, image_id: str) -> ImageRecord:
        """What is known of an image; raises UnknownImageError."""
        found = self._connection.execute(
            select(schema.images.c.record).where(schema.images.c.image_id == image_id)
        ).scalar_one_or_none()
        if found is None:
            raise UnknownImageError("image", image_id, "a registered image", "Ingest it first.")
        return manifest.decode_record(orjson.loads(found))

    def records(self) -> Iterator[ImageRecord]:
        """All images, by id."""
        for text in self._connection.execute(
            select(schema.images.c.record).order_by(schema.images.c.image_id)
        ).scalars():
            yield manifest.decode_record(orjson.loads(text))

    def images_of(self, patient_id: str) -> tuple[str, ...]:
        """Ids of a patient's images."""
        query = select(schema.images.c.image_id).where(schema.images.c.patient_id == patient_id)
        return tuple(self._connection.execute(query.order_by(schema.images.c.image_id)).scalars())

    def review(self, image_id: str) -> Review:
        """The review of an image; raises UnknownImageError."""
        row = self._connection.execute(
            select(schema.reviews).where(schema.reviews.c.image_id == image_id)
        ).one_or_none()
        if row is None:
            raise UnknownImageError("image", image_id, "an image under review", "Ingest it first.")
        return codec.decode_review(row.image_id, row.state, row.revision, row.version, row.body)

    def reviews(self, state: ReviewState | None = None) -> tuple[Review, ...]:
        """All reviews, or those in one state, by image id."""
        query = select(schema.reviews).order_by(schema.reviews.c.image_id)
        if state is not None:
            query = query.where(schema.reviews.c.state == state.value)
        rows = self._connection.execute(query).all()
        return tuple(codec.decode_review(r.image_id, r.state, r.revision, r.version, r.body) for r in rows)

    def create(self, review: Review, events: Sequence[Event], policy: str, now: float) -> None:
        """Stores a new review, its audit entries and the outbox rows for all its work."""
        self._connection.execute(insert(schema.reviews).values(image_id=review.image_id, **_review_row(review, now)))
        self._after_change(None, review, events, policy, now)

    def save(self, before: Review, after: Review, events: Sequence[Event], policy: str, now: float) -> Review:
        """The stored review, one version on; raises ConflictError where somebody else changed it since it was read."""
        stored = replace(after, version=before.version + 1)
        query = update(schema.reviews).where(
            schema.reviews.c.image_id == before.image_id, schema.reviews.c.version == before.version
        )
        if self._connection.execute(query.values(_review_row(stored, now))).rowcount != 1:
            raise ConflictError(
                f"image {before.image_id}", f"version {before.version}", "the newest version", "Try again."
            )
        self._after_change(before, stored, events, policy, now)
        return stored

    def record_events(self, image_id: str, events: Sequence[Event], policy: str, now: float) -> None:
        """Puts events on record that change no review."""
        audit.append(self._connection, image_id, events, policy, now)

    def states(self) -> dict[ReviewState, int]:
        """How many images are in each state; states without images are left out."""
        query = select(schema.reviews.c.state, func.count()).group_by(schema.reviews.c.state)
        return {ReviewState(state): count for state, count in self._connection.execute(query)}

    def approvals(self, since: float) -> tuple[int, float | None]:
        """How many images that are approved now became so after a moment, and when the last one did."""
        query = select(func.count(), func.max(schema.reviews.c.changed_at)).where(
            schema.reviews.c.state == ReviewState.APPROVED.value, schema.reviews.c.changed_at > since
        )
        count, last = self._connection.execute(query).one()
        return int(count), last

    def _after_change(
        self, before: Review | None, after: Review, events: Sequence[Event], policy: str, now: float
    ) -> None:
        known = {work.key: work for work in before.works} if before else {}
        answers = {answer.key: answer for answer in before.answers} if before else {}
        touched = [work for work in after.works if known.get(work.key) != work]
        for work in touched:
            self._put_work(work, work.key in known, now)
        for answer in after.answers:
            if answers.get(answer.key) != answer:
                self._put_answer(answer, now)
        keys = {work.key for work in touched} | _shown_again(before, after)
        self.enqueue(sorted(keys), now)
        audit.append(self._connection, after.image_id, events, policy, now)

    def _put_work(self, work: Work, known: bool, now: float) -> None:
        values = {"assignee": work.assignee, "status": work.status.value}
        if known:
            self._connection.execute(update(schema.works).where(schema.works.c.key == str(work.key)).values(values))
            return
        key = {"key": str(work.key), "image_id": work.key.image_id, "tier": int(work.key.tier), "opened_at": now}
        self._connection.execute(insert(schema.works).values({**key, **values}))

    def _put_answer(self, answer: Answer, now: float) -> None:
        annotation = answer.annotation
        values = {
            "answered_at": now,
            "author": annotation.author,
            "verdict": answer.verdict.value if answer.verdict else None,
            "changed": answer.changed,
            "lead_time": annotation.lead_time,
            "model_version": annotation.model_version,
        }
        self._connection.execute(update(schema.works).where(schema.works.c.key == str(answer.key)).values(values))

    # people

    def put_person(self, person: Person) -> None:
        """Stores a person, replacing what was known under the same address."""
        values = {
            "role": person.role.value,
            "user_id": person.user_id,
            "active": person.active,
            "expertise": codec.encode_strings(person.expertise),
        }
        changed = self._connection.execute(
            update(schema.people).where(schema.people.c.email == person.email).values(values)
        )
        if changed.rowcount == 0:
            self._connection.execute(insert(schema.people).values(email=person.email, **values))

    def people(self) -> tuple[Person, ...]:
        """Everybody, by e-mail address."""
        rows = self._connection.execute(select(schema.people).order_by(schema.people.c.email)).all()
        return tuple(
            Person(r.email, Role(r.role), r.user_id, r.active, codec.decode_strings(r.expertise)) for r in rows
        )

    def roster(self) -> Roster:
        """Everybody with the number of waiting pieces of work that are theirs."""
        query = (
            select(schema.works.c.assignee, func.count())
            .where(schema.works.c.status == WorkStatus.WAITING.value, schema.works.c.assignee.is_not(None))
            .group_by(schema.works.c.assignee)
        )
        load = tuple(sorted((str(email), int(count)) for email, count in self._connection.execute(query)))
        return Roster(self.people(), load)

    # what came from and goes to Label Studio

    def seen(self, annotation_ids: Iterable[int]) -> dict[int, str]:
        """The version of each annotation that was last dealt with."""
        wanted, found = sorted(set(annotation_ids)), {}
        for start in range(0, len(wanted), _CHUNK):
            query = select(schema.seen.c.annotation_id, schema.seen.c.source).where(
                schema.seen.c.annotation_id.in_(wanted[start : start + _CHUNK])
            )
            found.update({row.annotation_id: row.source for row in self._connection.execute(query)})
        return found

    def mark_seen(self, annotation_id: int, source: str, outcome: str) -> None:
        """Remembers that this version of an annotation was dealt with."""
        self._connection.execute(delete(schema.seen).where(schema.seen.c.annotation_id == annotation_id))
        self._connection.execute(
            insert(schema.seen).values(annotation_id=annotation_id, source=source, outcome=outcome)
        )

    def enqueue(self, keys: Iterable[WorkKey], now: float) -> None:
        """Asks for the Label Studio tasks of these pieces of work to be brought up to date."""
        rows = [{"key": str(key), "attempts": 0, "due_at": now, "error": ""} for key in keys]
        if rows:
            self._connection.execute(insert(schema.outbox), rows)

    def due(self, now: float, limit: int) -> tuple[OutboxItem, ...]:
        """Outbox rows whose time has come, oldest first."""
        query = select(schema.outbox).where(schema.outbox.c.due_at <= now).order_by(schema.outbox.c.id).limit(limit)
        return tuple(OutboxItem(r.id, WorkKey.parse(r.key), r.attempts) for r in self._connection.execute(query))

    def started(self, items: Iterable[OutboxItem]) -> None:
        """Marks rows as tried, so that a crash in the middle is known to the next try."""
        self._connection.execute(
            update(schema.outbox)
            .where(schema.outbox.c.id.in_([item.id for item in items]))
            .values(attempts=schema.outbox.c.attempts + 1)
        )

    def postpone(self, items: Iterable[OutboxItem], due_at: float, error: str) -> None:
        """Keeps rows for a later try and says why."""
        self._connection.execute(
            update(schema.outbox)
            .where(schema.outbox.c.id.in_([item.id for item in items]))
            .values(due_at=due_at, error=error)
        )

    def delivered(self, items: Iterable[OutboxItem]) -> None:
        """Removes rows that are done."""
        self._connection.execute(delete(schema.outbox).where(schema.outbox.c.id.in_([item.id for item in items])))

    def outbox_size(self) -> int:
        """Number of deliveries still to be made."""
        return self._connection.execute(select(func.count()).select_from(schema.outbox)).scalar_one()

    def places(self, keys: Iterable[WorkKey]) -> dict[WorkKey, TaskPlace]:
        """Where each piece of work lies in Label Studio."""
        wanted = [str(key) for key in keys]
        query = select(schema.works.c.key, schema.works.c.task_id, schema.works.c.pushed).where(
            schema.works.c.key.in_(wanted)
        )
        return {WorkKey.parse(r.key): TaskPlace(r.task_id, r.pushed) for r in self._connection.execute(query)}

    def put_place(self, key: WorkKey, place: TaskPlace) -> None:
        """Remembers where a piece of work lies."""
        self._connection.execute(
            update(schema.works)
            .where(schema.works.c.key == str(key))
            .values(task_id=place.task_id, pushed=place.pushed)
        )

    def keys_of(self, task_ids: Iterable[int]) -> tuple[WorkKey, ...]:
        """The pieces of work that lie in these Label Studio tasks."""
        query = select(schema.works.c.key).where(schema.works.c.task_id.in_(sorted(set(task_ids))))
        return tuple(sorted(WorkKey.parse(key) for key in self._connection.execute(query).scalars()))

    def forget_places(self, keys: Iterable[WorkKey]) -> None:
        """Forgets where pieces of work lay, because they lie there no longer."""
        wanted = [str(key) for key in keys]
        self._connection.execute(
            update(schema.works).where(schema.works.c.key.in_(wanted)).values(task_id=None, pushed=None)
        )

    def remake_tasks(self, tier: Tier, now: float) -> None:
        """Forgets all tasks of a tier and asks for those still waited for to be made again."""
        table = schema.works
        self._connection.execute(update(table).where(table.c.tier == int(tier)).values(task_id=None, pushed=None))
        query = select(table.c.key).where(table.c.tier == int(tier), table.c.status == WorkStatus.WAITING.value)
        self.enqueue(sorted(WorkKey.parse(key) for key in self._connection.execute(query).scalars()), now)

    def hint(self, project_id: int, task_ids: Iterable[int], action: str, now: float) -> None:
        """Stores what a webhook hinted at."""
        rows = [
            {"project_id": project_id, "task_id": task_id, "action": action, "received_at": now} for task_id in task_ids
        ]
        if rows:
            self._connection.execute(insert(schema.inbox), rows)

    def hints(self, limit: int) -> tuple[TaskHint, ...]:
        """Stored hints, oldest first."""
        query = select(schema.inbox).order_by(schema.inbox.c.id).limit(limit)
        return tuple(TaskHint(r.id, r.project_id, r.task_id) for r in self._connection.execute(query))

    def clear_hints(self, hints: Iterable[TaskHint]) -> None:
        """Removes hints that were followed."""
        self._connection.execute(delete(schema.inbox).where(schema.inbox.c.id.in_([hint.id for hint in hints])))

    def inbox_size(self) -> int:
        """Number of hints still to be followed."""
        return self._connection.execute(select(func.count()).select_from(schema.inbox)).scalar_one()

    def fact(self, name: str) -> str | None:
        """A stored fact such as a project's id or a cursor, or None."""
        return self._connection.execute(
            select(schema.facts.c.value).where(schema.facts.c.name == name)
        ).scalar_one_or_none()

    def put_fact(self, name: str, value: str) -> None:
        """Stores a fact."""
        self._connection.execute(delete(schema.facts).where(schema.facts.c.name == name))
        self._connection.execute(insert(schema.facts).values(name=name, value=value))

    # leases

    def lease_holder(self, name: str) -> str | None:
        """Who holds a lease, or None."""
        return self._connection.execute(
            select(schema.leases.c.owner).where(schema.leases.c.name == name)
        ).scalar_one_or_none()

    def take_lease(self, name: str, owner: str, now: float, seconds: float) -> bool:
        """Whether `owner` now holds the lease: it was free, expired, or theirs already."""
        table = schema.leases
        held = self._connection.execute(select(table).where(table.c.name == name).with_for_update()).one_or_none()
        if held is not None and held.owner != owner and held.expires_at > now:
            return False
        self._connection.execute(delete(table).where(table.c.name == name))
        self._connection.execute(insert(table).values(name=name, owner=owner, expires_at=now + seconds))
        return True

    def give_lease(self, name: str, owner: str) -> None:
        """Frees a lease that `owner` holds."""
        table = schema.leases
        self._connection.execute(delete(table).where(table.c.name == name, table.c.owner == owner))

    # audit

    def history(self, image_id: str | None = None, actor: str | None = None) -> Iterator[AuditEntry]:
        """Audit entries in order, of one image or one person where asked."""
        return audit.read(self._connection, image_id, actor)

    def verify_audit(self) -> tuple[AuditProblem, ...]:
        """Every place where the audit log is not what was written."""
        return audit.verify(self._connection)

    def waiting(self) -> Counter[tuple[Tier, str | None]]:
        """Number of waiting pieces of work by tier and assignee."""
        query = (
            select(schema.works.c.tier, schema.works.c.assignee, func.count())
            .where(schema.works.c.status == WorkStatus.WAITING.value)
            .group_by(schema.works.c.tier, schema.works.c.assignee)
        )
        return Counter({(Tier(tier), email): count for tier, email, count in self._connection.execute(query)})


def _review_row(review: Review, now: float) -> dict[str, object]:
    return {
        "state": review.state.value,
        "revision": review.revision,
        "version": review.version,
        "body": codec.encode_review(review),
        "changed_at": now,
    }


_SETTLED = (ReviewState.APPROVED, ReviewState.EXCLUDED, ReviewState.WITHDRAWN)


def _shown_again(before: Review | None, after: Review) -> set[WorkKey]:
    """Work whose task in Label Studio shows an outdated state once the image is settled, or no longer is."""
    settled = after.state in _SETTLED, before is not None and before.state in _SETTLED
    if not any(settled) or (before is not None and before.state is after.state):
        return set()
    return {work.key for work in after.works if work.status is not WorkStatus.CANCELLED}
