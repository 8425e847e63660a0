"""One retraining from approved labels to a promoted or refused bundle; the job worker runs it in its own process.

Every finished stage is one line of JSON on standard output: freeze, then what training reports.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from converters import taxonomy as taxonomies
from converters.annotation import TruthLevel
from converters.label_studio.controls import Tier
from converters.truth import TruthPolicy
from dermloop.freeze import freeze
from dermloop.home import Home
from dermloop.orphans import end_with_parent
from dermloop.stages import StageLine
from ml_backend import composition
from ml_backend.label_studio import LabelStudioClient
from ml_backend.preannotate import preannotate
from ml_backend.settings import Settings, read_settings
from review_workflow.service import ReviewService, open_service
from review_workflow.settings import read as read_review_settings
from telemetry import program, request_id, tracing
from training import config as training_config
from training.config import TrainingConfig
from training.retrain import retrain

CONFIG_FILE = "training.toml"
DEFAULT_RECIPE = "loop"
REGISTRY = "DERMLOOP_REGISTRY"
"""Names the registry on S3 that a promotion goes to as well, where `training.toml` names none."""

_APPROVED = TruthPolicy(minimum=TruthLevel.DERMATOLOGIST)


def read_config(home: Home) -> TrainingConfig:
    """The settings of `<home>/training.toml`, or of the recipe that fits a first small set where there is none."""
    path = home.root / CONFIG_FILE
    found = training_config.read(path) if path.is_file() else training_config.recipe(DEFAULT_RECIPE)
    return replace(found, registry=found.registry or os.environ.get(REGISTRY, ""))


def run(home: Home, service: ReviewService, config: TrainingConfig, tell: Callable[[StageLine], None]) -> None:
    """Freezes what is approved, trains, evaluates, gates and promotes; tells each stage as it ends."""
    began = time.monotonic()
    test_truth = TruthLevel[config.dataset.test_truth.upper()]
    report = freeze(service.approved(), home.root, taxonomies.read(), _APPROVED, test_truth=test_truth)
    counts = {
        "version": report.version.root.name,
        "images": report.images,
        "lesions": report.lesions,
        "splits": dict(report.splits),
        "without_truth": report.without_truth,
        "ambiguous": len(report.ambiguous),
    }
    tell(StageLine("freeze", time.monotonic() - began, counts))

    outcome = retrain(
        report.version,
        models=home.models,
        runs=home.root / "runs",
        config=config,
        on_stage=lambda stage: tell(StageLine(stage.stage, stage.seconds, stage.counts)),
        who="job worker",
    )
    if outcome.promotion is not None:
        tell(refresh(service.project(Tier.TECHNICIAN), read_settings()))


def refresh(project_id: int, settings: Settings) -> StageLine:
    """Draws the next pre-annotations: every waiting task of the project gets the new champion's prediction."""
    began = time.monotonic()
    parts = composition.build(settings)
    try:
        token = settings.label_studio_token.get_secret_value() if settings.label_studio_token else ""
        client = LabelStudioClient(settings.label_studio_url or "", token)
        with closing(client):
            report = preannotate(client, project_id, parts.service, parts.source, link_for=parts.link)
    finally:
        parts.close()
    counts = {"model_version": report.model_version, "predicted": report.predicted, "left_alone": report.left_alone}
    failures = tuple(f"task {task}: {reason}" for task, reason in report.failed)
    return StageLine("refresh", time.monotonic() - began, counts, failures)


def main() -> None:
    """Entry point of `python -m dermloop.retraining --home DIR`; libraries' chatter goes to standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the local stack")
    home = Home.at(parser.parse_args().home)
    end_with_parent()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    asked_by = request_id.accepted(os.environ.get(request_id.VARIABLE))
    inherited = tracing.inherited(os.environ)
    with program.telling("retraining"), request_id.bound(asked_by), tracing.span("retraining", inherited):
        run(home, open_service(read_review_settings()), read_config(home), lambda line: _write(out.fileno(), line))


def _write(descriptor: int, line: StageLine) -> None:
    os.write(descriptor, line.encode())


if __name__ == "__main__":
    main()
