"""What a command does to a review: pure, with policy, people and taxonomy passed in; nothing here reads a clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from converters.annotation import Annotation, Origin, TruthLevel
from converters.label_studio.controls import Tier, Verdict
from converters.taxonomy import Taxonomy
from converters.truth import agree
from review_workflow import consensus, rules
from review_workflow.merging import Settled, settle
from review_workflow.people import Person, Role, Roster
from review_workflow.policy import Expertise, Policy
from review_workflow.reliability import ReaderReliability
from review_workflow.review import (
    TIER_LEVELS,
    Answer,
    Command,
    Decision,
    Event,
    Reassign,
    Review,
    SendBack,
    Submit,
    Withdraw,
    Work,
    WorkKey,
    WorkStatus,
)
from review_workflow.states import Happened, ReviewState
from review_workflow.suspicion import is_suspicious

POLICY_ACTOR = "policy"
_MAY_MANAGE = (Role.QA, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Setting:
    """What decisions depend on besides the review and the command; `reliability` is None where it is not estimated."""

    policy: Policy
    taxonomy: Taxonomy
    roster: Roster
    reliability: ReaderReliability | None = None


def register(image_id: str) -> Decision:
    """A new review with its first piece of work, open to every technician."""
    review = Review(image_id).with_work(Work(WorkKey(image_id, Tier.TECHNICIAN, 1, 1)))
    return Decision(review, (Event(Happened.REGISTERED, "ingest", "service"),))


def apply(review: Review, command: Command, setting: Setting) -> Decision:
    """The review after a command and what happened, or the same review and the reason of the refusal."""
    if isinstance(command, Submit):
        return _submit(review, command, setting)
    if isinstance(command, SendBack):
        return _order_back(review, command)
    if isinstance(command, Reassign):
        return _reassign(review, command, setting)
    return _withdraw(review, command)


def shown(review: Review, key: WorkKey, setting: Setting) -> Annotation | None:
    """The reading that a piece of work starts from: what its reader found drawn on the image, if anything."""
    own = _previous_answer(review, key)
    if key.tier is Tier.TECHNICIAN:
        return own.annotation if own else None
    if key.tier is Tier.DERMATOLOGIST:
        below = None if is_blind(key, setting.policy) else review.newest(Tier.TECHNICIAN)
        return below.annotation if below else None
    readings = [answer.annotation for answer in review.readings(Tier.DERMATOLOGIST)]
    if not readings:
        return review.truth
    settled = _settle(readings, setting)
    return settled.reading if settled else readings[0]


def topics(review: Review, site: str | None, policy: Policy) -> tuple[str, ...]:
    """What an image is about for whoever it is given to: diagnoses and site, as far as the policy looks at them."""
    answer, wanted = review.newest(Tier.TECHNICIAN), policy.assignment.expertise
    named = tuple(x.diagnosis for x in answer.annotation.lesions if x.diagnosis) if answer else ()
    return (*(named if Expertise.DIAGNOSIS in wanted else ()), *((site,) if site and Expertise.SITE in wanted else ()))


def is_blind(key: WorkKey, policy: Policy) -> bool:
    """Whether a reader sees nothing that was drawn before, as the policy draws it; returned work never is blind."""
    if int(key.tier) not in policy.quality.blind_tiers or (key.tier is Tier.TECHNICIAN and key.round > 1):
        return False
    who = "technician" if key.tier is Tier.TECHNICIAN else key.slot
    return policy.draw(f"{key.image_id}:{who}", "blind reading") < policy.quality.share_blind


def _previous_answer(review: Review, key: WorkKey) -> Answer | None:
    earlier = [a for a in review.answers if a.key.tier is key.tier and a.key.round < key.round]
    return max(earlier, key=lambda a: (a.key.round, a.key.slot == key.slot), default=None)


def _submit(review: Review, command: Submit, setting: Setting) -> Decision:
    known = review.answer(command.key)
    if known is not None and known.source == command.source:
        return Decision(review)
    if problem := rules.complaint(review, command):
        return _refuse(review, command, problem)
    handle = {Tier.TECHNICIAN: _label, Tier.DERMATOLOGIST: _read, Tier.QA: _adjudicate}[command.key.tier]
    opened = _reopened(review, command)
    decision = handle(opened.review, command, setting)
    return replace(decision, events=(*opened.events, *decision.events))


def _refuse(review: Review, command: Submit, problem: str) -> Decision:
    work = review.work(command.key)
    told = review if work is None else review.with_work(replace(work, told=problem))
    event = _event("refused", command, reason=problem, after=command.annotation)
    return Decision(told, (event,), problem)


def _reopened(review: Review, command: Submit) -> Decision:
    if review.state not in (ReviewState.APPROVED, ReviewState.EXCLUDED):
        return Decision(review)
    reopened = replace(review.moved(Happened.REOPENED), revision=review.revision + 1, truth=None)
    event = _event(Happened.REOPENED, command, reason="edited after the decision", before=review.truth)
    return Decision(reopened, (event,))


def _label(review: Review, command: Submit, setting: Setting) -> Decision:
    answer = _answer(review, command, setting)
    labelled = review.without_waiting().with_answer(answer).moved(Happened.LABELLED)
    events = (_answered(Happened.LABELLED, command, review, answer),)
    if review.known is not None:
        return _scored(labelled, events)
    return Decision(_open_readings(labelled, command.site, setting), events)


def _read(review: Review, command: Submit, setting: Setting) -> Decision:
    answer = _answer(review, command, setting)
    if command.verdict is Verdict.SEND_BACK and review.known is None:
        return _send_to_technician(review.with_answer(answer), command, command.reason)
    read = review.without_waiting([Tier.QA]).with_answer(answer).moved(Happened.READ)
    events = (_answered(Happened.READ, command, review, answer),)
    if review.known is not None:
        return _scored(read, events)
    if any(work.status is WorkStatus.WAITING for work in read.current(Tier.DERMATOLOGIST)):
        return Decision(read, events)
    judged = _judge(read, setting)
    return replace(judged, events=(*events, *judged.events))


def _settle(readings: Sequence[Annotation], setting: Setting) -> Settled | None:
    return settle(readings, setting.policy, setting.reliability)


def _scored(review: Review, events: tuple[Event, ...]) -> Decision:
    """The end of a gold task: its reader's own line on record is the same as for any other image."""
    return Decision(review.moved(Happened.SCORED), (*events, Event(Happened.SCORED, POLICY_ACTOR, "service")))


def _judge(review: Review, setting: Setting) -> Decision:
    answers = review.readings(Tier.DERMATOLOGIST)
    sent_back = any(answer.verdict is Verdict.SEND_BACK for answer in answers)
    settled = None if sent_back else _settle([answer.annotation for answer in answers], setting)
    if settled is None:
        disputed = _open_decision(review.moved(Happened.DISPUTED))
        return Decision(disputed, (Event(Happened.DISPUTED, POLICY_ACTOR, "service"),))
    agreed = review.moved(Happened.AGREED)
    events = (Event(Happened.AGREED, POLICY_ACTOR, "service", reason=settled.how),)
    if _needs_qa(agreed, setting):
        return Decision(_open_decision(agreed), events)
    approved = replace(agreed.moved(Happened.APPROVED), truth=settled.reading)
    event = Event(Happened.APPROVED, POLICY_ACTOR, "service", reason=settled.how, after=settled.reading)
    return Decision(approved, (*events, event))


def _needs_qa(review: Review, setting: Setting) -> bool:
    policy = setting.policy
    seen = [*review.readings(Tier.TECHNICIAN), *review.readings(Tier.DERMATOLOGIST)]
    suspicious = any(is_suspicious(answer.annotation, setting.taxonomy) for answer in seen)
    sampled = policy.draw(review.image_id, "qa sample") < policy.qa.share_of_agreed
    escalated = any(answer.verdict is Verdict.ESCALATE for answer in review.readings(Tier.DERMATOLOGIST))
    return sampled or escalated or (policy.qa.malignant and suspicious) or review.revision > 1


def _adjudicate(review: Review, command: Submit, setting: Setting) -> Decision:
    answer = _answer(review, command, setting)
    decided = review.with_answer(answer)
    if command.verdict is Verdict.SEND_BACK:
        return _send_to_technician(decided, command, command.reason)
    if command.verdict is Verdict.EXCLUDE:
        excluded = replace(decided.moved(Happened.EXCLUDED), truth=None)
        return Decision(excluded, (_answered(Happened.EXCLUDED, command, review, answer),))
    truth = _final(review, answer, setting)
    approved = replace(decided.moved(Happened.APPROVED), truth=truth)
    event = replace(_answered(Happened.APPROVED, command, review, answer), after=truth)
    return Decision(approved, (event,))


def _final(review: Review, answer: Answer, setting: Setting) -> Annotation:
    readings = [a.annotation for a in review.readings(Tier.DERMATOLOGIST)]
    settled = _settle(readings, setting) if len(readings) > 1 else None
    if settled is not None and not answer.changed:
        return replace(answer.annotation, lesions=settled.reading.lesions, level=TruthLevel.CONSENSUS)
    return consensus.with_soft_labels(answer.annotation, readings, setting.policy.agreement.iou)


def _send_to_technician(review: Review, command: Submit | SendBack, reason: str) -> Decision:
    first = review.newest(Tier.TECHNICIAN)
    email = command.person.email if command.person else ""
    role = command.person.role if command.person else ""
    key = WorkKey(review.image_id, Tier.TECHNICIAN, review.round(Tier.TECHNICIAN) + 1, 1)
    work = Work(key, first.annotation.author if first else None, reason=f"{email} ({role}): {reason.strip()}")
    sent = review.without_waiting().moved(Happened.SENT_BACK).with_work(work)
    return Decision(replace(sent, truth=None), (_event(Happened.SENT_BACK, command, reason=reason.strip()),))


def _return_to_readers(review: Review, command: SendBack) -> Decision:
    reason = f"{command.person.email} ({command.person.role}): {command.reason.strip()}"
    again = review.round(Tier.DERMATOLOGIST) + 1
    works = [
        Work(replace(work.key, round=again), work.assignee, reason=reason)
        for work in review.current(Tier.DERMATOLOGIST)
    ]
    returned = review.without_waiting().moved(Happened.RETURNED).with_work(*works)
    return Decision(replace(returned, truth=None), (_event(Happened.RETURNED, command, reason=command.reason),))


def _order_back(review: Review, command: SendBack) -> Decision:
    problem = _about_order(review, command)
    if problem:
        return _refuse_order(review, command, problem)
    opened = Decision(review)
    if review.state in (ReviewState.APPROVED, ReviewState.EXCLUDED):
        reopened = replace(review.moved(Happened.REOPENED), revision=review.revision + 1)
        opened = Decision(reopened, (_event(Happened.REOPENED, command, reason=command.reason, before=review.truth),))
    if command.tier is Tier.TECHNICIAN:
        decision = _send_to_technician(opened.review, command, command.reason)
    else:
        decision = _return_to_readers(opened.review, command)
    return replace(decision, events=(*opened.events, *decision.events))


def _about_order(review: Review, command: SendBack) -> str:
    if command.person.role not in (*_MAY_MANAGE, Role.DERMATOLOGIST):
        return f"The role {command.person.role} may not send images back."
    if not command.reason.strip():
        return "Sending back needs a reason."
    if review.known is not None:
        return "This is a gold task: it measures its reader and is reviewed no further."
    if review.state in (ReviewState.IMPORTED, ReviewState.SENT_BACK, ReviewState.WITHDRAWN):
        return f"The image is {review.state}; there is nothing to send back."
    if command.tier is not Tier.TECHNICIAN and not review.readings(Tier.DERMATOLOGIST):
        return "No dermatologist has read the image yet; send it to the technician."
    if command.tier is Tier.QA:
        return "Images are sent back to the technician or to the dermatologists."
    return ""


def _reassign(review: Review, command: Reassign, setting: Setting) -> Decision:
    work = review.work(command.key)
    person = setting.roster.find(command.assignee) if command.assignee else None
    if command.person.role not in _MAY_MANAGE:
        return _refuse_order(review, command, f"The role {command.person.role} may not reassign work.")
    if work is None or work.status is not WorkStatus.WAITING:
        return _refuse_order(review, command, f"{command.key} does not wait for an answer.")
    if command.assignee and (person is None or not person.may_answer(work.key.tier)):
        return _refuse_order(review, command, f"{command.assignee} has not the role for this tier.")
    if command.assignee in _authors_below(review, work.key.tier):
        return _refuse_order(review, command, f"{command.assignee} has answered for this image in an earlier tier.")
    moved = review.with_work(replace(work, assignee=command.assignee, told=""))
    reason = f"{work.assignee or 'anybody'} → {command.assignee or 'anybody'}"
    return Decision(moved, (_event("reassigned", command, reason=reason, key=command.key),))


def _withdraw(review: Review, command: Withdraw) -> Decision:
    if review.state is ReviewState.WITHDRAWN:
        return Decision(review)
    ended = replace(review.without_waiting().moved(Happened.WITHDRAWN), truth=None, known=None)
    return Decision(ended, (_event(Happened.WITHDRAWN, command, reason=command.reason, before=review.truth),))


def _refuse_order(review: Review, command: SendBack | Reassign, problem: str) -> Decision:
    return Decision(review, (_event("refused", command, reason=problem),), problem)


def _open_readings(review: Review, site: str | None, setting: Setting) -> Review:
    number = review.round(Tier.DERMATOLOGIST) + 1
    count = _reader_count(review, setting)
    before = [work.assignee for work in review.works if work.key.tier is Tier.DERMATOLOGIST and work.assignee]
    never = _authors_below(review, Tier.DERMATOLOGIST)
    kept = [e for e in dict.fromkeys(reversed(before)) if _can_read(setting.roster.find(e)) and e not in never][:count]
    about = topics(review, site, setting.policy)
    fresh = setting.roster.pick(Tier.DERMATOLOGIST, count - len(kept), {*never, *kept}, about)
    readers: list[str | None] = [*sorted(kept), *fresh] or [None]
    works = (
        Work(WorkKey(review.image_id, Tier.DERMATOLOGIST, number, slot), reader)
        for slot, reader in enumerate(readers, start=1)
    )
    return review.with_work(*works)


def _reader_count(review: Review, setting: Setting) -> int:
    policy, answer = setting.policy.readers, review.newest(Tier.TECHNICIAN)
    suspicious = answer is not None and is_suspicious(answer.annotation, setting.taxonomy)
    drawn = setting.policy.draw(review.image_id, "second reader") < policy.share_with_second
    unsure = answer is not None and any((x.score or 1.0) < policy.second_below_score for x in answer.annotation.lesions)
    return policy.together if drawn or unsure or (suspicious and policy.second_for_malignant) else 1


def _open_decision(review: Review) -> Review:
    key = WorkKey(review.image_id, Tier.QA, review.round(Tier.QA) + 1, 1)
    return review.with_work(Work(key))


def _can_read(person: Person | None) -> bool:
    return person is not None and person.active and person.may_answer(Tier.DERMATOLOGIST)


def _authors_below(review: Review, tier: Tier) -> set[str]:
    return {answer.annotation.author for answer in review.answers if answer.key.tier < tier}


def _answer(review: Review, command: Submit, setting: Setting) -> Answer:
    before = shown(review, command.key, setting)
    if before is None:
        changed = any(lesion.origin is not Origin.PREDICTION for lesion in command.annotation.lesions)
    else:
        changed = not agree(before, command.annotation, setting.policy.agreement.unchanged_iou)
    verdict = _measured(command.verdict, changed) if before is not None else command.verdict
    annotation = replace(command.annotation, level=TIER_LEVELS[command.key.tier])
    blind = is_blind(command.key, setting.policy)
    return Answer(command.key, annotation, verdict, command.reason.strip(), changed, command.source, blind)


def _measured(verdict: Verdict | None, changed: bool) -> Verdict | None:
    if verdict in (Verdict.ACCEPT, Verdict.APPROVE) and changed:
        return Verdict.CORRECT
    return verdict


def _answered(happened: Happened, command: Submit, review: Review, answer: Answer) -> Event:
    known = review.answer(answer.key)
    event = _event(happened, command, reason=answer.reason, after=answer.annotation)
    return replace(event, verdict=answer.verdict, before=known.annotation if known else None)


def _event(
    happened: Happened | str,
    command: Command,
    reason: str = "",
    before: Annotation | None = None,
    after: Annotation | None = None,
    key: WorkKey | None = None,
) -> Event:
    person = command.person
    submitted = command if isinstance(command, Submit) else None
    return Event(
        happened,
        actor=person.email if person else (submitted.annotation.author if submitted else ""),
        role=person.role.value if person else "unknown",
        tier=submitted.key.tier if submitted else None,
        key=submitted.key if submitted else key,
        verdict=submitted.verdict if submitted else None,
        reason=reason,
        source=submitted.source if submitted else "",
        before=before,
        after=after,
    )
