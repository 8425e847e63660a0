"""`dermloop review …`: set up the projects, bring them into step, look at images, people and the audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from review_workflow.people import Person
    from review_workflow.service import ReviewService

app = typer.Typer(help="Three-tier review: projects, people, images, audit.", no_args_is_help=True)
people_app = typer.Typer(help="Who is in the review, and in which role.", no_args_is_help=True)
app.add_typer(people_app, name="people")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
By = Annotated[str, typer.Option("--by", help="E-mail address of who orders this; on record.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; on record, and shown to whoever gets the work.")]


@app.command()
def setup(as_json: Json = False) -> None:
    """Make or repair the three Label Studio projects, their webhooks, tabs and the ML backend connection."""
    with _service() as service:
        report = service.set_up()
    projects = {str(int(tier)): project_id for tier, project_id in report.projects}
    text = "\n".join((*report.changes, *report.problems) or ("Everything was as it should be.",))
    found = {"projects": projects, "changes": list(report.changes), "problems": list(report.problems)}
    _print(as_json, found, text)
    if report.problems:
        raise typer.Exit(1)


@app.command("install-actions")
def install_actions(
    environment: Annotated[Path, typer.Argument(help="The virtual environment that Label Studio runs in.")],
    as_json: Json = False,
) -> None:
    """Drop the bulk verdicts into Label Studio's Data Manager; it shows them after its next start."""
    from review_workflow.errors import ReviewError
    from review_workflow.label_studio_actions import install_actions as install

    try:
        written = install(environment)
    except ReviewError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    _print(as_json, {"written": written}, "Written; restart Label Studio." if written else "Already there.")


@app.command()
def sync(
    full: Annotated[bool, typer.Option(help="Look at every task again, not only at the changed ones.")] = False,
    as_json: Json = False,
) -> None:
    """Take in what changed in Label Studio and deliver what follows."""
    with _service() as service:
        report = service.sync(full)
    _print(
        as_json,
        asdict(report),
        f"{report.looked_at} tasks looked at, {report.counted} answers counted, {report.refused} refused, "
        f"{report.delivered} tasks written, {report.waiting} still to write",
    )


@app.command()
def order(as_json: Json = False) -> None:
    """Order the queues anew by what the model says of unanswered images."""
    with _service() as service:
        report = service.order()
        while report.more:
            if not as_json:
                typer.echo(f"{report.looked_at} new readings, {report.delivered} tasks written so far", err=True)
            report = report.plus(service.order())
    _print(as_json, asdict(report), f"{report.looked_at} new readings of the model, {report.delivered} tasks written")


@app.command()
def status(as_json: Json = False) -> None:
    """Show how many images are in which state and whose work is waiting."""
    with _service() as service:
        found = service.status()
    lines = [f"{count:6d}  {state}" for state, count in found.states] or ["no images yet"]
    lines += [f"{count:6d}  waiting in tier {tier} for {email or 'anybody'}" for tier, email, count in found.waiting]
    lines += [f"{found.outbox:6d}  tasks to write", f"{found.inbox:6d}  hints to follow"]
    _print(as_json, {**asdict(found), "states": dict(found.states)}, "\n".join(lines))


@app.command()
def readers(as_json: Json = False) -> None:
    """Show how good each reader is: against what was approved, on gold tasks, and on wrong suggestions."""
    with _service() as service:
        quality, gold = service.quality(), service.gold()
    lines = [
        f"{q.author:32} tier {int(q.tier)}  {q.judged:4d} judged   box F1 {q.box_f1:.2f}  "
        f"missed {q.missed_malignant} of {q.malignant} malignant  rubber stamp {_share(q.rubber_stamp)}"
        for q in quality
    ]
    lines += [
        f"{g.author:32} tier {int(g.tier)}  {g.tasks:4d} gold     box F1 {_share(g.box_f1)}  "
        f"IoU {_share(g.mean_iou)}  diagnosis {_share(g.diagnosis_share)}  "
        f"missed {g.missed_malignant} of {g.malignant} malignant"
        for g in gold
    ]
    found = {
        "quality": [{**asdict(q), "rubber_stamp": q.rubber_stamp} for q in quality],
        "gold": [asdict(g) for g in gold],
    }
    _print(as_json, found, "\n".join(lines) or "Nobody has been measured yet.")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


@app.command()
def show(image: Annotated[str, typer.Argument(help="Id of the image.")], as_json: Json = False) -> None:
    """Show one image: its state, its work, and everything that happened to it."""
    with _service() as service:
        review, history = service.review(image), service.history(image_id=image)
    works = [{"key": str(w.key), "assignee": w.assignee or "", "status": w.status.value} for w in review.works]
    lines = [f"{review.state}, revision {review.revision}"]
    lines += [f"  {work['key'][-5:]}  {work['status']:10} {work['assignee'] or 'anybody'}" for work in works]
    lines += [_line(asdict(entry)) for entry in history]
    head = {"image_id": image, "state": review.state.value, "revision": review.revision, "works": works}
    _print(as_json, {**head, "history": [asdict(entry) for entry in history]}, "\n".join(lines))


@app.command("send-back")
def send_back(
    image: Annotated[str, typer.Argument(help="Id of the image.")],
    by: By,
    reason: Reason,
    tier: Annotated[int, typer.Option(min=1, max=2, help="1 = technician, 2 = dermatologists.")] = 1,
    as_json: Json = False,
) -> None:
    """Send an image back to an earlier tier."""
    from converters.label_studio.controls import Tier

    with _service() as service:
        review = service.send_back(image, service.person(by), Tier(tier), reason)
    _print(as_json, {"image_id": image, "state": review.state.value}, f"{image} is {review.state} now")


@app.command()
def assign(
    task: Annotated[str, typer.Argument(help="Key of the task, image:tier:round:slot.")],
    to: Annotated[str, typer.Argument(help="E-mail address of the new reader, or `anybody`.")],
    by: By,
    as_json: Json = False,
) -> None:
    """Give a waiting task to somebody else."""
    from review_workflow.review import WorkKey

    with _service() as service:
        service.reassign(WorkKey.parse(task), service.person(by), None if to == "anybody" else to)
    _print(as_json, {"key": task, "assignee": to}, f"{task} is for {to} now")


@app.command()
def withdraw(
    patient: Annotated[str, typer.Argument(help="Id of the patient.")],
    reason: Reason = "consent withdrawn",
    as_json: Json = False,
) -> None:
    """End the review of all images of a patient and remove their tasks."""
    with _service() as service:
        images = service.withdraw(patient, reason=reason)
    _print(as_json, {"patient": patient, "images": list(images)}, f"{len(images)} images withdrawn")


@app.command()
def export(
    image: Annotated[str | None, typer.Option(help="Only this image.")] = None,
    person: Annotated[str | None, typer.Option(help="Only what this person did.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="CSV instead of JSON lines.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines, which is the default.")] = False,
) -> None:
    """Print the audit log for an inspector: one JSON object for each entry, or CSV."""
    import csv as csv_writer
    import sys

    with _service() as service:
        rows = [asdict(entry) for entry in service.history(image, person)]
    if csv and not as_json:
        writer = csv_writer.DictWriter(sys.stdout, list(rows[0]) if rows else ["seq"])
        writer.writeheader()
        writer.writerows(rows)
        return
    for row in rows:
        typer.echo(json.dumps(row, ensure_ascii=False))


@app.command()
def refusals(
    limit: Annotated[int, typer.Option(min=1, help="How many rows, the newest first.")] = 100,
    as_json: Json = False,
) -> None:
    """Show what was turned away at the door: wrong secrets, malformed webhooks, foreign projects, failed sign-ins."""
    with _service() as service:
        found = service.refusals.newest(limit)
    lines = [f"{r.minute}  {r.count:7d} × {r.what} at {r.place}, {r.source}" for r in found]
    _print(as_json, {"refusals": [asdict(row) for row in found]}, "\n".join(lines) or "Nothing was turned away.")


@app.command("verify-audit")
def verify_audit(
    anchor: Annotated[
        list[str] | None, typer.Option(help="A place noted earlier, number:digest; must still be there. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check that the audit log is as it was written; exit status 1 where an entry was altered, removed or moved."""
    from review_workflow.store import AuditAnchor

    with _service() as service:
        end = service.audit_head()
        problems = service.verify_audit([AuditAnchor.parse(text) for text in anchor or ()])
    text = "\n".join(f"entry {p.seq}: {p.what}" for p in problems) or "The audit log is as it was written."
    found = {"intact": not problems, "problems": [asdict(problem) for problem in problems], "anchor": str(end)}
    _print(as_json, found, f"{text}\nTo be noted elsewhere: {end}")
    if problems:
        raise typer.Exit(1)


@people_app.command("list")
def list_people(as_json: Json = False) -> None:
    """List everybody."""
    with _service() as service:
        people = service.people()
    text = "\n".join(f"{p.email:40} {p.role:14} {'' if p.active else 'on leave'}".rstrip() for p in people)
    _print(as_json, {"people": [asdict(person) for person in people]}, text or "nobody yet")


@people_app.command("add")
def add_person(
    email: Annotated[str, typer.Argument(help="The address they sign in to Label Studio with.")],
    role: Annotated[str, typer.Argument(help="technician, dermatologist, qa, ml-engineer or admin.")],
    expertise: Annotated[list[str] | None, typer.Option(help="A site or a diagnosis code; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Add a person, or change their role."""
    from review_workflow.errors import UnknownPersonError
    from review_workflow.people import Person, Role

    with _service() as service:
        if role not in tuple(Role):
            raise UnknownPersonError("role", role, f"one of {', '.join(Role)}", "Choose one.")
        person = Person(email, Role(role), expertise=tuple(expertise or ()))
        service.put_person(person)
    _print(as_json, asdict(person), f"{email} is {role}")


@people_app.command("leave")
def leave(email: Annotated[str, typer.Argument(help="Who is away.")], as_json: Json = False) -> None:
    """Give somebody no new work until they are back, and their waiting work to others."""
    person = _set_active(email, False)
    with _service() as service:
        moved = service.hand_over(email)
    _print_person(as_json, person, f"gets no new work; {len(moved)} waiting tasks went to others")


@people_app.command("back")
def back(email: Annotated[str, typer.Argument(help="Who is back.")], as_json: Json = False) -> None:
    """Give somebody new work again."""
    _print_person(as_json, _set_active(email, True), "gets new work again")


def _set_active(email: str, active: bool) -> Person:
    with _service() as service:
        person = replace(service.person(email), active=active)
        service.put_person(person)
    return person


def _print_person(as_json: bool, person: Person, text: str) -> None:
    _print(as_json, asdict(person), f"{person.email} {text}")


@contextmanager
def _service() -> Iterator[ReviewService]:
    from review_workflow import settings
    from review_workflow.errors import ReviewError
    from review_workflow.service import open_service

    try:
        service = open_service(settings.read())
        try:
            yield service
        finally:
            service.close()
    except ReviewError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def _line(entry: dict[str, Any]) -> str:
    verdict = f" ({entry['verdict']})" if entry["verdict"] else ""
    reason = f": {entry['reason']}" if entry["reason"] else ""
    return f"  {entry['at'][:19]}  {entry['happened']}{verdict} by {entry['actor']}{reason}"


def _print(as_json: bool, value: dict[str, Any], text: str) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False) if as_json else text)
