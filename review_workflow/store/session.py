"""What can be done inside one transaction of the review database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import orjson
from sqlalchemy import delete, func, insert, select, update

from converters import manifest
from converters.annotation import Annotation, ImageRecord
from converters.label_studio.controls import Tier
from review_workflow.errors import ConflictError, UnknownImageError
from review_workflow.people import Person, Role, Roster
from review_workflow.review import Answer, Event, Review, Work, WorkKey, WorkStatus
from review_workflow.states import ReviewState
from review_workflow.store import audit, codec, gold, insight, refusals, schema, vitals
from review_workflow.store.audit import AuditAnchor, AuditEntry, AuditProblem
from review_workflow.store.gold import GoldTask
from review_workflow.store.insight import Insight
from review_workflow.store.refusals import Refusal
from review_workflow.store.traffic import Traffic
from review_workflow.store.vitals import Vitals

_PAGE = 2_000


class Session(Traffic):
    """Reads and writes on one open connection; commit and rollback belong to whoever opened it."""

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

    def records_of(self, image_ids: Collection[str]) -> dict[str, ImageRecord]:
        """What is known of these images, by id."""
        query = select(schema.images.c.image_id, schema.images.c.record)
        rows = self._connection.execute(query.where(schema.images.c.image_id.in_(sorted(image_ids))))
        return {row.image_id: manifest.decode_record(orjson.loads(row.record)) for row in rows}

    def is_name_taken(self, name: str) -> bool:
        """Whether an image came under this file name."""
        said = f'"original_name":{orjson.dumps(name).decode()}'
        holds = schema.images.c.record.contains(said, autoescape=True)
        return self._connection.execute(select(1).where(holds).limit(1)).first() is not None

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

    def reviews_of(self, image_ids: Collection[str]) -> dict[str, Review]:
        """The reviews of these images, by id."""
        rows = self._connection.execute(select(schema.reviews).where(schema.reviews.c.image_id.in_(sorted(image_ids))))
        return {r.image_id: codec.decode_review(r.image_id, r.state, r.revision, r.version, r.body) for r in rows}

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

    def put_model_reading(self, reading: Annotation) -> bool:
        """Whether the model's reading of an image is new or another one than before."""
        table, row = schema.model_readings, codec.encode_annotation(reading)
        known = self._connection.execute(
            select(table.c.reading).where(table.c.image_id == reading.image_id)
        ).scalar_one_or_none()
        if known == row:
            return False
        self._connection.execute(delete(table).where(table.c.image_id == reading.image_id))
        values = {"image_id": reading.image_id, "model_version": reading.model_version or "", "reading": row}
        self._connection.execute(insert(table).values(values))
        return True

    def model_readings_of(self, image_ids: Collection[str]) -> dict[str, Annotation]:
        """What the model says of these images, by id; those it was not asked about are left out."""
        table = schema.model_readings
        rows = self._connection.execute(
            select(table.c.image_id, table.c.reading).where(table.c.image_id.in_(sorted(image_ids)))
        )
        return {row.image_id: codec.decode_annotation(row.reading) for row in rows}

    def approved_diagnoses(self) -> dict[str, int]:
        """The number of approved images that hold each diagnosis."""
        table, counts, last = schema.reviews, Counter[str](), ""
        query = select(table.c.image_id, table.c.body).where(table.c.state == ReviewState.APPROVED.value)
        query = query.order_by(table.c.image_id).limit(_PAGE)
        while rows := self._connection.execute(query.where(table.c.image_id > last)).all():
            for row in rows:
                counts.update(codec.decode_truths_diagnoses(row.body))
            last = rows[-1].image_id
        return dict(counts)

    def states(self) -> dict[ReviewState, int]:
        """How many images are in each state; states without images and gold tasks are left out."""
        ordinary = schema.reviews.c.image_id.not_in(select(schema.gold.c.image_id))
        query = select(schema.reviews.c.state, func.count()).where(ordinary).group_by(schema.reviews.c.state)
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
        touched = [work for work in after.works if known.get(work.key) != work and not _was_copied(work, known)]
        for work in touched:
            self._put_work(work, work.key in known, now)
        for answer in after.answers:
            if answers.get(answer.key) != answer:
                self._put_answer(answer, now)  # of a copied answer there is no row to change
        keys = {work.key for work in touched if _looks_different(known.get(work.key), work)} | _shown_again(
            before, after
        )
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

    # gold tasks

    def put_gold(self, task: GoldTask, now: float) -> None:
        """Stores which image is a gold task; raises an integrity error where that work brought one along before."""
        gold.put(self._connection, task, now)

    def without_gold(self, keys: Sequence[WorkKey]) -> tuple[WorkKey, ...]:
        """Those of these pieces of work that have brought no gold task along and are none."""
        return gold.without(self._connection, keys)

    def gold_sources(self, tier: Tier, reader: str | None) -> set[str]:
        """The images whose copies one reader (None: the tier's readers together) had as gold tasks of a tier."""
        return gold.sources(self._connection, tier, reader)

    def gold_reviews(self) -> tuple[Review, ...]:
        """The reviews of all gold tasks, by image id."""
        return gold.reviews(self._connection)

    def rested(self, before: float) -> tuple[Review, ...]:
        """Approved reviews that nothing has changed since a moment, the longest rested first, at most 500."""
        return gold.rested(self._connection, before)

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

    # audit

    def history(self, image_id: str | None = None, actor: str | None = None) -> Iterator[AuditEntry]:
        """Audit entries in order, of one image or one person where asked."""
        return audit.read(self._connection, image_id, actor)

    def verify_audit(self, anchors: Collection[AuditAnchor] = ()) -> tuple[AuditProblem, ...]:
        """Every place where the audit log is not what was written, or not what was noted elsewhere."""
        return audit.verify(self._connection, anchors)

    def audit_head(self) -> AuditAnchor:
        """Where the audit log ends now."""
        return audit.head(self._connection)

    def recent(self, limit: int, before: int | None = None) -> list[AuditEntry]:
        """The newest audit entries, or those before an entry, newest first."""
        return audit.recent(self._connection, limit, before)

    # what was turned away

    def add_refusal(self, refusal: Refusal) -> None:
        """Adds to what one caller was refused in one minute."""
        refusals.add(self._connection, refusal)

    def newest_refusals(self, limit: int) -> tuple[Refusal, ...]:
        """What was turned away, the newest minute first."""
        return refusals.newest(self._connection, limit)

    def refusals(self) -> Iterator[Refusal]:
        """Everything that was turned away, oldest first."""
        return refusals.read(self._connection)

    # looking

    def insight(self, now: float, last_days: int) -> Insight:
        """What the dashboard's front page shows."""
        return insight.gather(self._connection, now, last_days)

    def vitals(self, now: float, after: int) -> Vitals:
        """What an operator watches, with the audit entries after a number."""
        return vitals.take(self._connection, now, after)

    def newest_reviews(self, states: Sequence[ReviewState], limit: int, offset: int = 0) -> tuple[Review, ...]:
        """Reviews in some states, the latest change first."""
        return insight.newest_reviews(self._connection, states, limit, offset)

    def answered(self, tier: Tier) -> int:
        """Number of pieces of work in a tier that have their answer."""
        return insight.answered(self._connection, tier)

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


def _looks_different(before: Work | None, after: Work) -> bool:
    """Whether the task in Label Studio has to change; that it was answered, Label Studio knows itself."""
    return before is None or replace(before, status=after.status) != after or after.status is WorkStatus.CANCELLED


def _was_copied(work: Work, known: Mapping[WorkKey, Work]) -> bool:
    """Whether work was never anybody's task: it came with its answer, from the source of a gold task."""
    return work.key not in known and work.status is WorkStatus.ANSWERED


_SETTLED = (ReviewState.APPROVED, ReviewState.EXCLUDED, ReviewState.WITHDRAWN)


def _shown_again(before: Review | None, after: Review) -> set[WorkKey]:
    """Work whose task in Label Studio shows an outdated state once the image is settled, or no longer is."""
    settled = after.state in _SETTLED, before is not None and before.state in _SETTLED
    if not any(settled) or (before is not None and before.state is after.state):
        return set()
    return {work.key for work in after.works if work.status is not WorkStatus.CANCELLED}
