"""What an answer must be to count: by whom, on which work, with which content. Each rule returns a complaint or ""."""

from __future__ import annotations

from converters.annotation import Annotation, Finding
from converters.label_studio.controls import VERDICTS, Tier, Verdict
from review_workflow.people import TIER_ROLES, Person
from review_workflow.review import Review, Submit, Work, WorkKey, WorkStatus
from review_workflow.states import ReviewState

_S = ReviewState
_ANSWERABLE = {
    Tier.TECHNICIAN: (_S.IMPORTED, _S.SENT_BACK),
    Tier.DERMATOLOGIST: (_S.LABELLED, _S.IN_REVIEW),
    Tier.QA: (_S.AGREED, _S.DISPUTED, _S.REOPENED),
}
_EDITABLE = {
    Tier.TECHNICIAN: (_S.LABELLED, _S.APPROVED, _S.EXCLUDED, _S.SCORED),
    Tier.DERMATOLOGIST: (_S.IN_REVIEW, _S.AGREED, _S.DISPUTED, _S.APPROVED, _S.EXCLUDED, _S.SCORED),
    Tier.QA: (_S.APPROVED, _S.EXCLUDED),
}
_NEEDS_REASON = (Verdict.SEND_BACK, Verdict.EXCLUDE)
_ALLOWED = {
    Tier.TECHNICIAN: (None,),
    Tier.DERMATOLOGIST: (Verdict.ACCEPT, Verdict.CORRECT, Verdict.SEND_BACK, Verdict.ESCALATE),
    Tier.QA: (Verdict.APPROVE, Verdict.CORRECT, Verdict.SEND_BACK, Verdict.EXCLUDE),
}


def complaint(review: Review, command: Submit) -> str:
    """Why a submission cannot count, in a sentence for its author; empty where it can."""
    work = review.work(command.key)
    if work is None:
        return "This task is not part of the review. Take a task from your queue."
    return (
        _about_person(command.person, work, review)
        or _about_moment(review, work)
        or _about_content(command.key.tier, command.verdict, command.reason, command.annotation)
    )


def _about_person(person: Person | None, work: Work, review: Review) -> str:
    tier = work.key.tier
    if person is None:
        return "Your account has no role in the review. Ask the administrator to add you."
    if not person.may_answer(tier):
        return f"This is work for the role {TIER_ROLES[tier]}; yours is {person.role}. Nothing was changed."
    if work.assignee not in (None, person.email):
        return "This task is assigned to another reader. Nothing was changed."
    standing = review.answer(work.key)
    if standing is not None and standing.annotation.author != person.email:
        return "This task was already answered by somebody else. Nothing was changed."
    authors = {answer.annotation.author for answer in review.answers if _is_foreign(answer.key, work)}
    if person.email in authors:
        return "You have already answered for this image; somebody else has to review it."
    return ""


def _is_foreign(other: WorkKey, work: Work) -> bool:
    if other.tier is work.key.tier:
        return other.round == work.key.round and other.slot != work.key.slot
    return other.tier < work.key.tier


def _about_moment(review: Review, work: Work) -> str:
    tier = work.key.tier
    if review.state is ReviewState.WITHDRAWN:
        return "Consent for this image was withdrawn. Nothing was changed."
    if work.key.round != review.round(tier) or work.status is WorkStatus.CANCELLED:
        return "This task is closed: the work on this image has moved on. Take the next task from your queue."
    allowed = _EDITABLE if work.status is WorkStatus.ANSWERED else _ANSWERABLE
    if review.state not in allowed[tier]:
        return f"The image is {review.state} now, so this answer came too late. Ask for it to be sent back."
    return ""


def _about_content(tier: Tier, verdict: Verdict | None, reason: str, annotation: Annotation) -> str:
    allowed = _ALLOWED[tier]
    if verdict not in allowed:
        return f"Choose a verdict: {', '.join(v for v in VERDICTS.get(tier, ()))}."
    if verdict in _NEEDS_REASON:
        return "" if reason.strip() else f"{verdict} needs a reason. Write one sentence and submit again."
    if annotation.finding is Finding.NOT_LOOKED_AT:
        return "Outline the lesions, or choose lesion-free or ungradable, and submit again."
    return ""
