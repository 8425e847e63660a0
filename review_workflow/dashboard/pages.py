"""The dashboard's routes: sign-in, overview, disputed cases, one image, one person, the audit log."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import NoReturn, TypeVar, cast

import orjson
from flask import Blueprint, Flask, Response, abort, redirect, render_template, request, send_file, session, url_for
from werkzeug.wrappers import Response as AnyResponse

from review_workflow.dashboard import charts, training_files
from review_workflow.dashboard.login import Doorkeeper
from review_workflow.dashboard.overview import ReaderAgreement, ReaderRow, measure, reader_rows, weekly
from review_workflow.dashboard.pictures import draw
from review_workflow.door import note_refusal
from review_workflow.effort import ModelEffort, effort
from review_workflow.people import Person, Role
from review_workflow.refusals import Refused
from review_workflow.service import ReviewService
from review_workflow.states import ReviewState
from review_workflow.store import AuditEntry, Insight, Refusal
from review_workflow.store.insight import Queue
from review_workflow.training_jobs import EXTENSION, TrainingJobs

_View = TypeVar("_View", bound=Callable[..., object])
_OVERSEERS = (Role.QA, Role.ADMIN, Role.ML_ENGINEER)
_TRAINERS = (Role.ADMIN, Role.ML_ENGINEER)
_ALL = tuple(Role)
_DAYS = 14
_PAGE = 12
_JOBS = 10
_AUDIT_PAGE = 100
_MEASURED = 500
_REFUSALS = 20
_DECIDED = (ReviewState.AGREED, ReviewState.DISPUTED, ReviewState.APPROVED, ReviewState.EXCLUDED)


def add_dashboard(
    app: Flask, service: ReviewService, doorkeeper: Doorkeeper, home: Path, images: Path, secret: str
) -> None:
    """Adds the pages to the application; sessions are signed with `secret`."""
    app.secret_key = secret
    app.config.update(SESSION_COOKIE_HTTPONLY=True, SESSION_COOKIE_SAMESITE="Lax", PERMANENT_SESSION_LIFETIME=12 * 3600)
    pages = Blueprint(
        "dashboard", __name__, template_folder="templates", static_folder="static", static_url_path="/assets"
    )
    _add_sign_in(pages, service, doorkeeper)
    _add_overview(pages, service)
    _add_images(pages, service, images)
    _add_training(app, pages, service, home)
    _add_audit(pages, service)
    app.register_blueprint(pages)
    app.context_processor(lambda: {"me": _me(service)})
    app.after_request(_harden)


def _add_sign_in(pages: Blueprint, service: ReviewService, doorkeeper: Doorkeeper) -> None:
    @pages.get("/sign-in")
    def sign_in() -> str:
        return render_template("sign_in.html", problem="")

    @pages.post("/sign-in")
    def enter() -> AnyResponse | tuple[str, int]:
        email, password = request.form.get("email", "").strip(), request.form.get("password", "")
        known = next((p for p in service.people() if p.email.casefold() == email.casefold()), None)
        if known is None or not doorkeeper.knows(email, password):
            note_refusal(service.refusals, Refused.SIGN_IN)
            problem = "Unknown address or password. Use your Label Studio login."
            return render_template("sign_in.html", problem=problem), 401
        session.clear()
        session["email"] = known.email
        session.permanent = True
        return redirect(url_for("dashboard.overview"))

    @pages.post("/sign-out")
    def leave() -> AnyResponse:
        session.clear()
        return redirect(url_for("dashboard.sign_in"))


def _add_overview(pages: Blueprint, service: ReviewService) -> None:
    @pages.get("/")
    @_for(service, _ALL)
    def overview() -> str:
        me = _me(service)
        assert me is not None
        overseer = me.role in _OVERSEERS
        found = service.insight(_DAYS)
        days = [(day.day, day.answers) for day in found.days]
        return render_template(
            "overview.html",
            states=_flow(service.states()),
            queues=tuple(queue for queue in found.queues if overseer or _waits_for(queue, me)),
            columns=charts.columns(days, found.today, _DAYS),
            readers=_readers(service, found, me, overseer),
            overseen=_overseen(service) if overseer else None,
            overseer=overseer,
        )

    @pages.get("/people/<email>")
    @_for(service, _ALL)
    def person(email: str) -> str:
        me = _me(service)
        assert me is not None
        if me.role not in _OVERSEERS and me.email != email:
            _forbid(service, me)
        return render_template(
            "person.html", person=service.person(email), rows=service.history(actor=email)[-_AUDIT_PAGE:][::-1]
        )


def _add_images(pages: Blueprint, service: ReviewService, images: Path) -> None:
    @pages.get("/disputed")
    @_for(service, _OVERSEERS)
    def disputed() -> str:
        page = max(request.args.get("page", 1, type=int), 1)
        reviews = service.newest((ReviewState.DISPUTED,), _PAGE + 1, (page - 1) * _PAGE)
        pictures = [draw(review, service.record(review.image_id), service.taxonomy) for review in reviews[:_PAGE]]
        return render_template("disputed.html", pictures=pictures, page=page, more=len(reviews) > _PAGE)

    @pages.get("/images/<image_id>")
    @_for(service, _OVERSEERS)
    def image(image_id: str) -> str:
        review, record = service.review(image_id), service.record(image_id)
        drawn, rows = draw(review, record, service.taxonomy), service.history(image_id=image_id)
        return render_template("image.html", drawn=drawn, review=review, record=record, rows=rows)

    @pages.get("/pictures/<image_id>")
    @_for(service, _OVERSEERS)
    def picture(image_id: str) -> Response:
        path = images / Path(service.record(image_id).uri).name
        if not path.is_file():
            abort(404, "The picture is not on this machine.")
        return send_file(path, max_age=3600)


def _add_training(app: Flask, pages: Blueprint, service: ReviewService, home: Path) -> None:
    def jobs() -> TrainingJobs | None:
        return app.extensions.get(EXTENSION)

    @pages.get("/training")
    @_for(service, _OVERSEERS)
    def training() -> str:
        queue, me = jobs(), _me(service)
        found = queue.newest(_JOBS) if queue else ()
        may_change = queue is not None and me is not None and me.role in _TRAINERS
        return render_template("training.html", found=training_files.read(home), jobs=found, may_change=may_change)

    @pages.post("/training/jobs")
    @_for(service, _TRAINERS)
    def retrain() -> AnyResponse:
        queue, me = jobs(), _me(service)
        if queue is None or me is None:
            abort(404, "No job queue is connected to this service.")
        job_id = queue.ask(f"asked for by {me.email} on the dashboard", me.email)
        service.note(me, "retraining asked for", job_id)
        return redirect(url_for("dashboard.training"))

    @pages.post("/training/jobs/<job_id>/cancel")
    @_for(service, _TRAINERS)
    def cancel(job_id: str) -> AnyResponse:
        queue, me = jobs(), _me(service)
        if queue is None or me is None:
            abort(404, "No job queue is connected to this service.")
        queue.cancel(job_id)
        service.note(me, "retraining cancelled", job_id)
        return redirect(url_for("dashboard.training"))


def _add_audit(pages: Blueprint, service: ReviewService) -> None:
    @pages.get("/audit")
    @_for(service, _OVERSEERS)
    def audit() -> str:
        before = request.args.get("before", type=int)
        entries = service.recent(_AUDIT_PAGE, before)
        problems = service.verify_audit() if before is None else None
        oldest = entries[-1].seq if entries else 1
        refused = service.refusals.newest(_REFUSALS) if before is None else ()
        return render_template("audit.html", rows=entries, problems=problems, oldest=oldest, refused=refused)

    @pages.get("/audit.<kind>")
    @_for(service, _OVERSEERS)
    def export(kind: str) -> Response:
        return _download("audit", kind, AuditEntry, service.history())

    @pages.get("/refusals.<kind>")
    @_for(service, _OVERSEERS)
    def export_refusals(kind: str) -> Response:
        return _download("refusals", kind, Refusal, service.refusals.all())


@dataclass(frozen=True, slots=True)
class _Overseen:
    """What only QA, administrators and ML engineers see on the front page."""

    agreement: ReaderAgreement
    weeks: charts.Lines
    efforts: tuple[ModelEffort, ...]
    gold: int


def _overseen(service: ReviewService) -> _Overseen:
    reviews, iou = service.newest(_DECIDED, _MEASURED), service.policy.agreement.iou
    weeks = weekly(reviews, service.taxonomy, iou)
    series = [("box F1", [week.f1 for week in weeks]), ("same diagnosis", [week.same_diagnosis for week in weeks])]
    return _Overseen(
        measure(reviews, service.taxonomy, iou),
        charts.lines([week.monday for week in weeks], series),
        effort(reviews),
        sum(found.tasks for found in service.gold()),
    )


def _readers(service: ReviewService, found: Insight, me: Person, overseer: bool) -> tuple[ReaderRow, ...]:
    """Everybody for overseers, with their gold tasks; only their own numbers, without gold, for everybody else."""
    rows = reader_rows(found.readers, service.quality(), service.gold() if overseer else ())
    return tuple(row for row in rows if overseer or row.author == me.email)


def _waits_for(queue: Queue, me: Person) -> bool:
    return me.may_answer(queue.tier) and queue.assignee in ("", me.email)


def _flow(states: Mapping[str, int]) -> list[tuple[str, int, float]]:
    """The states in their order with counts and shares of all images."""
    total = sum(states.values()) or 1
    known = [state.value for state in ReviewState if state.value in states]
    return [(state, states[state], states[state] / total) for state in known]


def _for(service: ReviewService, roles: tuple[Role, ...]) -> Callable[[_View], _View]:
    """Lets in only signed-in people of these roles; the others are told, or sent to sign in."""

    def decorate(view: _View) -> _View:
        @wraps(view)
        def guarded(*args: object, **kwargs: object) -> object:
            me = _me(service)
            if me is None:
                return redirect(url_for("dashboard.sign_in"))
            if me.role not in roles:
                _forbid(service, me)
            return view(*args, **kwargs)

        return cast(_View, guarded)

    return decorate


def _forbid(service: ReviewService, me: Person) -> NoReturn:
    note_refusal(service.refusals, Refused.PAGE, me.email)
    abort(403, "This page is for QA, ML engineers and the administrator.")


def _me(service: ReviewService) -> Person | None:
    email = session.get("email")
    return next((p for p in service.people() if p.email == email), None) if email else None


def _harden(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("X-Frame-Options", "DENY")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    response.headers.setdefault("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'")
    return response


def _download(
    name: str, kind: str, row: type[AuditEntry | Refusal], entries: Sequence[AuditEntry] | Sequence[Refusal]
) -> Response:
    if kind not in ("csv", "jsonl"):
        abort(404, "There is CSV and there are JSON lines.")
    names = [field.name for field in fields(row)]
    answer = Response(
        _csv(names, entries) if kind == "csv" else _jsonl(entries),
        mimetype="text/csv" if kind == "csv" else "application/jsonl",
    )
    answer.headers["Content-Disposition"] = f"attachment; filename={name}.{kind}"
    return answer


def _csv(names: Sequence[str], entries: Iterable[AuditEntry | Refusal]) -> Iterator[str]:
    for row in (dict(zip(names, names, strict=True)), *(asdict(entry) for entry in entries)):
        buffer = io.StringIO()
        csv.DictWriter(buffer, names).writerow(row)
        yield buffer.getvalue()


def _jsonl(entries: Iterable[AuditEntry | Refusal]) -> Iterator[bytes]:
    for entry in entries:
        yield orjson.dumps(asdict(entry), option=orjson.OPT_APPEND_NEWLINE)
