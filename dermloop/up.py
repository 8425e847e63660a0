"""`dermloop up`: from an empty folder to a browser with outlined lesions, and back to it after any stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.label_studio.controls import Tier
from dermloop.demo import write_demo
from dermloop.demo.files import METADATA
from dermloop.first_bundle import ensure_champion
from dermloop.ingest import IngestReport, ingest
from dermloop.stack import Stack
from ml_backend import composition
from ml_backend import preannotate as predictions
from ml_backend.label_studio import LabelStudioClient
from ml_backend.preannotate import PreannotationReport
from review_workflow.people import Person
from review_workflow.service import ReviewService

DEMO_SEED = 1
Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What to import and whether to train; without a folder, so many synthetic images are drawn on the first run."""

    images: Path | None = None
    metadata: Path | None = None
    demo_count: int = 60
    train: bool = True


@dataclass(frozen=True, slots=True)
class UpReport:
    """What a start did; None where nothing had to be done."""

    ingested: IngestReport | None
    champion: str | None
    preannotated: PreannotationReport | None


def bring_up(stack: Stack, options: UpOptions, say: Say, progress: Progress) -> UpReport:
    """Everything between running programs and a stack that people can work with; only what is missing is done.

    Raises the root errors of the packages involved where a step cannot be done.
    """
    service = stack.open_review()
    try:
        register_people(stack, service)
        set_up(service, say)
        ingested = _import(stack, service, options, say, progress)
        champion = ensure_champion(stack.home, say, options.train, progress)
        preannotated = preannotate(stack, service.project(Tier.TECHNICIAN), say, progress) if champion else None
    finally:
        service.close()
    return UpReport(ingested, champion, preannotated)


def register_people(stack: Stack, service: ReviewService) -> None:
    """Makes the stack's people known to the review, each in their role."""
    for login in (stack.admin, *stack.people):
        service.put_person(Person(login.email, login.role, login.user_id))


def set_up(service: ReviewService, say: Say) -> None:
    """Makes or repairs the three projects, their webhooks and the backend connection."""
    report = service.set_up()
    for problem in report.problems:
        say(problem)
    if len(report.changes) > 3:
        say(f"Set up the three projects in Label Studio ({len(report.changes)} changes)")
        return
    for change in report.changes:
        say(f"Repaired in Label Studio: {change}")


def _import(
    stack: Stack, service: ReviewService, options: UpOptions, say: Say, progress: Progress
) -> IngestReport | None:
    """Takes the named folder in, or on a first run without one, synthetic images."""
    folder = options.images
    if folder is None:
        if service.states():
            service.settle()
            return None
        folder = _drawn(stack.home.demo, options.demo_count, say, progress)
    say(f"Importing images from {folder}")
    report = ingest(
        folder, stack.home, options.metadata, service.register, progress=lambda d, t: progress("Importing", d, t)
    )
    say(f"{len(report.records)} images in the home, {report.registered} of them new, {len(report.skipped)} left out")
    for entry in report.skipped:
        say(f"  left out: {entry.item}: {entry.reason}")
    say("Handing the work to Label Studio")
    service.settle()
    return report


def _drawn(folder: Path, count: int, say: Say, progress: Progress) -> Path:
    if not (folder / METADATA).is_file():
        say(f"Drawing {count} synthetic images (no --images given)")
        write_demo(folder, count, DEMO_SEED, progress=lambda done, total: progress("Drawing", done, total))
    return folder


def preannotate(stack: Stack, project: int, say: Say, progress: Progress) -> PreannotationReport:
    """The report after every task of a project carries a prediction of the champion; raises ServingError."""
    settings = stack.serving_settings()
    client = LabelStudioClient(stack.label_studio_url, stack.admin.token)
    parts = composition.build(settings)
    try:
        report = predictions.preannotate(
            client,
            project,
            parts.service,
            parts.source,
            lambda done, total: progress("Pre-annotating", done, total),
            link_for=parts.link,
        )
    finally:
        parts.close()
        client.close()
    if report.predicted:
        say(f"{report.model_version} outlined {report.predicted} images")
    for task, reason in report.failed:
        say(f"  no prediction for task {task}: {reason}")
    return report
