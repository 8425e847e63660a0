"""The review as its users call it: register images, bring Label Studio into step, decide, look things up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from converters import taxonomy as taxonomies
from converters.annotation import Annotation, ImageRecord
from converters.label_studio.controls import Tier
from converters.taxonomy import Taxonomy
from review_workflow import policy as policies
from review_workflow import status, webhook_loss
from review_workflow.copies import ImageCopies
from review_workflow.decisions import Setting, apply, register, topics
from review_workflow.errors import BusyError, LabelStudioError, ReviewError, UnknownPersonError
from review_workflow.estimates import Estimates
from review_workflow.gateway import Gateway
from review_workflow.gold import GoldScore, score
from review_workflow.label_studio import LabelStudioTasks
from review_workflow.people import Person, Role
from review_workflow.policy import Policy
from review_workflow.project_setup import SetupOptions, SetupReport, set_up
from review_workflow.quality import ReaderQuality, judge
from review_workflow.queue_order import QueueOrder
from review_workflow.refusals import RefusalBook, Refused
from review_workflow.review import Command, Event, Reassign, Review, SendBack, Withdraw, WorkKey
from review_workflow.seeding import GoldSeeder
from review_workflow.settings import ReviewSettings
from review_workflow.states import ReviewState
from review_workflow.store import AuditAnchor, AuditEntry, AuditProblem, Insight, Session, Store, open_store
from review_workflow.store.vitals import Vitals
from review_workflow.sync import PATIENCE, Sync, SyncReport, project_fact
from review_workflow.triggers import Progress
from review_workflow.webhooks import Hint

SYSTEM = Person("system", Role.ADMIN)
_SETTLE_SECONDS = 300.0
_ORDER_SECONDS = 5.0


class ReviewService:
    """All use cases over one database; `gateway` is None where no Label Studio is configured.

    `images` is the folder of the stored images; without it there are no gold tasks.
    """

    def __init__(
        self,
        store: Store,
        gateway: LabelStudioTasks | None,
        policy: Policy,
        taxonomy: Taxonomy,
        options: SetupOptions,
        clock: Callable[[], float] = time.time,
        images: Path | None = None,
    ) -> None:
        self._store, self._gateway = store, gateway
        self._policy, self._taxonomy = policy, taxonomy
        self._options = options
        self._clock = clock
        self._estimates = Estimates(store, policy, taxonomy, clock)
        seed = GoldSeeder(store, self._setting, clock, ImageCopies(images)).seed if images else lambda: 0
        self.refusals = RefusalBook(store, clock)
        self._sync = self._brought_into_step(gateway, seed) if gateway else None

    # images in, labels out

    def register(self, records: Iterable[ImageRecord]) -> int:
        """Number of images that were new; each gets a first piece of work for the technicians."""
        added = 0
        for record in records:
            with self._store.writing() as session:
                if session.add_image(record, self._clock()):
                    decision = register(record.image_id)
                    session.create(decision.review, decision.events, self._policy.digest, self._clock())
                    added += 1
        return added

    def approved(self) -> list[tuple[ImageRecord, list[Annotation]]]:
        """Every approved image with its truth first and then the readings that led to it, by image id.

        The truth has the highest level, so the truth resolver picks it: CONSENSUS where several readers agreed, QA
        where QA decided, DERMATOLOGIST where one reader's answer was approved by policy.
        """
        with self._store.reading() as session:
            reviews = session.reviews(ReviewState.APPROVED)
            return [(session.record(review.image_id), _evidence(review)) for review in reviews]

    def annotations(self, image_id: str) -> list[Annotation]:
        """Every answer that stands for an image, by tier, round and slot; raises UnknownImageError."""
        answers = sorted(self.review(image_id).answers, key=lambda answer: answer.key)
        return [answer.annotation for answer in answers]

    def review(self, image_id: str) -> Review:
        """The review of an image; raises UnknownImageError."""
        with self._store.reading() as session:
            return session.review(image_id)

    def record(self, image_id: str) -> ImageRecord:
        """What is known of an image; raises UnknownImageError."""
        with self._store.reading() as session:
            return session.record(image_id)

    # people

    def put_person(self, person: Person) -> None:
        """Stores a person or replaces what was known of them; on record when something changed."""
        with self._store.writing() as session:
            known = {p.email: p for p in session.people()}.get(person.email)
            stored = replace(person, user_id=person.user_id or (known.user_id if known else None))
            if stored != known:
                session.put_person(stored)
                reason = f"{stored.email} is {stored.role}{'' if stored.active else ', on leave'}"
                event = Event("person changed", SYSTEM.email, SYSTEM.role, reason=reason)
                session.record_events("", [event], self._policy.digest, self._clock())

    def people(self) -> tuple[Person, ...]:
        """Everybody, by e-mail address."""
        with self._store.reading() as session:
            return session.people()

    def hand_over(self, email: str, by: Person = SYSTEM) -> tuple[WorkKey, ...]:
        """The waiting work of a person, given to whoever is next by expertise and load, else to anybody."""
        with self._store.reading() as session:
            keys = session.waiting_keys(assignee=email)
        for key in keys:
            with self._store.reading() as session:
                review, roster = session.review(key.image_id), session.roster()
                about = topics(review, session.record(key.image_id).site, self._policy)
            busy = {work.assignee for work in review.current(key.tier) if work.assignee}
            never = {email, *busy, *(a.annotation.author for a in review.answers if a.key.tier < key.tier)}
            self.reassign(key, by, next(iter(roster.pick(key.tier, 1, never, about)), None))
        return keys

    def person(self, email: str) -> Person:
        """The person with an address; raises UnknownPersonError."""
        found = next((person for person in self.people() if person.email == email), None)
        if found is None:
            raise UnknownPersonError("person", email, "somebody known", "Add them with `dermloop review people add`.")
        return found

    # Label Studio

    def set_up(self) -> SetupReport:
        """Makes or repairs the three projects and remembers them; tasks of a lost project are made again."""
        with self._store.reading() as session:
            known = {tier: int(found) for tier in Tier if (found := session.fact(project_fact(tier)))}
        report = set_up(self._real(), self._taxonomy, known, self._options, self.people())
        with self._store.writing() as session:
            for tier, project_id in report.projects:
                session.put_fact(project_fact(tier), str(project_id))
                if known.get(tier, project_id) != project_id:
                    session.remake_tasks(tier, self._clock())
        return report

    def project(self, tier: Tier) -> int:
        """Label Studio's id of a tier's project; raises LabelStudioError before the first set-up."""
        return self._synced().project(tier)

    def receive(self, hint: Hint) -> None:
        """Stores what a webhook hinted at, to be followed soon."""
        with self._store.writing() as session:
            session.hint(hint.project_id, hint.task_ids, hint.action, self._clock())

    def sync(self, full: bool = False, patience: float = PATIENCE) -> SyncReport:
        """Takes in everything changed in Label Studio and delivers what follows; `full` looks at every task again.

        Raises LabelStudioError where Label Studio is away, BusyError where another process is at it all the time of
        one's `patience` in seconds.
        """
        return self._synced().run(full, patience)

    def order(self) -> SyncReport:
        """Orders the queues by what the model says of unanswered images, for some seconds: `more` tells to call again.

        The readers' reliability is estimated anew, and gold tasks are put among the queues, as the policy says.
        """
        synced = self._synced()
        self._estimates.refresh()
        return synced.order(_ORDER_SECONDS)

    def follow_hints(self) -> SyncReport:
        """Takes in what webhooks hinted at and delivers what is due; nothing while another process is at it."""
        with suppress(BusyError):
            return self._synced().follow_hints()
        return SyncReport()

    def settle(self, seconds: float = _SETTLE_SECONDS) -> SyncReport:
        """Returns once every submitted answer was taken in and all work that follows lies in Label Studio.

        Passes of other processes are waited for. Raises LabelStudioError where deliveries still wait after so many
        seconds, BusyError where another process was at it all that time.
        """
        synced = self._synced()
        deadline = time.monotonic() + seconds
        total = report = synced.run(patience=seconds)
        while report.waiting and time.monotonic() < deadline:
            time.sleep(0.2)
            report = synced.run(patience=seconds)
            total = total.plus(report)
        if report.waiting:
            raise LabelStudioError("deliveries", report.waiting, "an empty outbox", "Look at Label Studio's log.")
        return total

    # decisions outside Label Studio

    def send_back(self, image_id: str, by: Person, tier: Tier, reason: str) -> Review:
        """The review after sending an image back to an earlier tier; raises ReviewError where that is refused."""
        return self._order(image_id, SendBack(by, tier, reason))

    def reassign(self, key: WorkKey, by: Person, assignee: str | None) -> Review:
        """The review after giving waiting work to somebody else; raises ReviewError where that is refused."""
        return self._order(key.image_id, Reassign(by, key, assignee))

    def withdraw(self, patient_id: str, by: Person = SYSTEM, reason: str = "consent withdrawn") -> tuple[str, ...]:
        """Ids of the patient's images, none of which is used from now on; raises ReviewError for an unknown patient."""
        with self._store.reading() as session:
            images = session.images_of(patient_id)
        if not images:
            raise ReviewError("patient", patient_id, "a patient with images", "Check the id.")
        for image_id in images:
            self._order(image_id, Withdraw(by, reason))
        return images

    def _order(self, image_id: str, command: Command) -> Review:
        with self._store.writing() as session:
            review = session.review(image_id)
            decision = apply(review, command, self._setting(session))
            if decision.events and not decision.refusal:
                return session.save(review, decision.review, decision.events, self._policy.digest, self._clock())
            session.record_events(image_id, decision.events, self._policy.digest, self._clock())
        if decision.refusal:
            raise ReviewError(f"image {image_id}", review.state.value, "an allowed step", decision.refusal)
        return review

    # looking

    def states(self) -> Mapping[str, int]:
        """How many images stand in each review state."""
        with self._store.reading() as session:
            return {state.value: count for state, count in session.states().items()}

    def status(self) -> status.Status:
        """Where the whole review stands."""
        with self._store.reading() as session:
            return status.take(session, self._policy.digest)

    def history(self, image_id: str | None = None, actor: str | None = None) -> list[AuditEntry]:
        """Audit entries in order, of one image or one person where asked."""
        with self._store.reading() as session:
            return list(session.history(image_id, actor))

    def insight(self, days: int) -> Insight:
        """Queues, daily answers of the last days, readers and models, as the dashboard shows them."""
        with self._store.reading() as session:
            return session.insight(self._clock(), days)

    def vitals(self, after: int) -> Vitals:
        """What an operator watches, with the audit entries after a number."""
        with self._store.reading() as session:
            return session.vitals(self._clock(), after)

    def webhooks_lost(self) -> int:
        """How many answers were found by reconciliation and told of by no webhook."""
        with self._store.reading() as session:
            return webhook_loss.read(session).lost

    def newest(self, states: Sequence[ReviewState], limit: int, offset: int = 0) -> tuple[Review, ...]:
        """Reviews in some states, the latest change first."""
        with self._store.reading() as session:
            return session.newest_reviews(states, limit, offset)

    def quality(self, limit: int = 2000) -> tuple[ReaderQuality, ...]:
        """Every technician and dermatologist against the newest approved truths."""
        with self._store.reading() as session:
            return judge(session.newest_reviews([ReviewState.APPROVED], limit), self._setting(session))

    def gold(self) -> tuple[GoldScore, ...]:
        """Every reader's answers on gold tasks against the known truths."""
        with self._store.reading() as session:
            return score(session.gold_reviews(), self._setting(session))

    def recent(self, limit: int, before: int | None = None) -> list[AuditEntry]:
        """The newest audit entries, or those before an entry, newest first."""
        with self._store.reading() as session:
            return session.recent(limit, before)

    def progress(self, since: float | None, running: bool = False, asked_by_hand: bool = False) -> Progress:
        """What the retraining trigger needs to know, with approvals counted after `since` (epoch seconds)."""
        with self._store.reading() as session:
            count, last = session.approvals(since or 0.0)
        return Progress(count, last, since, running, asked_by_hand)

    def note(self, person: Person, what: str, reason: str) -> None:
        """Puts on record what somebody did outside the images."""
        with self._store.writing() as session:
            event = Event(what, person.email, person.role.value, reason=reason)
            session.record_events("", [event], self._policy.digest, self._clock())

    def verify_audit(self, anchors: Sequence[AuditAnchor] = ()) -> Sequence[AuditProblem]:
        """Every place where the audit log is not what was written, or noted elsewhere; empty when all is well."""
        with self._store.at_one_moment() as session:
            return session.verify_audit(anchors)

    def audit_head(self) -> AuditAnchor:
        """Where the audit log ends now; noted outside the database, it proves later that nothing was cut off."""
        with self._store.reading() as session:
            return session.audit_head()

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes in force."""
        return self._taxonomy

    def close(self) -> None:
        """Gives the database and the connections to Label Studio back."""
        self.refusals.flush()
        self._store.close()
        if isinstance(self._gateway, Gateway):
            self._gateway.close()

    def _setting(self, session: Session) -> Setting:
        return Setting(self._policy, self._taxonomy, session.roster(), self._estimates.current(session))

    def _refuse_project(self, project_id: int, hints: int) -> None:
        self.refusals.note(Refused.FOREIGN, "/webhook", f"project {project_id}", hints)

    def _brought_into_step(self, gateway: LabelStudioTasks, seed: Callable[[], int]) -> Sync:
        queues = QueueOrder(self._store, gateway, self._policy, self._taxonomy)
        return Sync(self._store, gateway, self._setting, self._clock, queues, seed, self._refuse_project)

    def _real(self) -> Gateway:
        if not isinstance(self._gateway, Gateway):
            raise _not_configured()
        return self._gateway

    def _synced(self) -> Sync:
        if self._sync is None:
            raise _not_configured()
        return self._sync


def open_service(settings: ReviewSettings, clock: Callable[[], float] = time.time) -> ReviewService:
    """The review service of these settings: the one place where its parts are put together."""
    taxonomy = taxonomies.read(settings.taxonomy)
    token = settings.label_studio_token.get_secret_value()
    policy = policies.read(settings.policy_file)
    masks = policy.readers.masks
    heatmap = settings.heatmap_link
    gateway = Gateway(settings.label_studio_url, token, taxonomy, masks=masks, heatmap=heatmap) if token else None
    store = open_store(settings.database)
    return ReviewService(store, gateway, policy, taxonomy, _options(settings, masks), clock, settings.images)


def _options(settings: ReviewSettings, masks: bool) -> SetupOptions:
    hook = f"{settings.public_url.rstrip('/')}/webhook" if settings.public_url else None
    return SetupOptions(
        webhook_url=hook,
        webhook_secret=settings.webhook_secret.get_secret_value(),
        storage=settings.images if settings.images.is_dir() else None,
        ml_url=settings.ml_backend_url or None,
        ml_user=settings.ml_backend_user,
        ml_password=settings.ml_backend_password.get_secret_value(),
        masks=masks,
    )


def _not_configured() -> LabelStudioError:
    cure = "Set DERMLOOP_REVIEW_LABEL_STUDIO_TOKEN."
    return LabelStudioError("Label Studio", None, "an address and a token", cure)


def _evidence(review: Review) -> list[Annotation]:
    assert review.truth is not None, "an approved review has a truth"
    readings = (*review.readings(Tier.DERMATOLOGIST), *review.readings(Tier.TECHNICIAN))
    return [review.truth, *(a.annotation for a in readings if a.annotation.level < review.truth.level)]
