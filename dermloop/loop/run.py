"""The loop from images to the next model, without hands, on a running stack."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.annotation import Annotation, ImageRecord
from converters.formats.metadata_csv import MetadataTable, read_rows
from converters.label_studio.config import labelling_config
from converters.label_studio.controls import Tier
from converters.taxonomy import Taxonomy
from dermloop.errors import LoopError
from dermloop.first_bundle import ensure_champion
from dermloop.ingest import IngestReport, ingest
from dermloop.loop.annotators import Annotator
from dermloop.loop.caller import SteadyCaller
from dermloop.loop.candidates import offer_worse_candidate
from dermloop.loop.readers import Shares, draw_script
from dermloop.loop.report import LoopReport
from dermloop.loop.tiers import Cast, Play, left_open
from dermloop.stack import Stack
from dermloop.stages import StageLine, broken
from dermloop.up import preannotate, register_people, set_up
from dermloop.worker import read_stages
from ml_backend.bundle import champion_version
from ml_backend.jobs import Job, JobQueue, JobState, request_retrain
from review_workflow.people import Role
from review_workflow.service import ReviewService

_JOB_STAGES = ("freeze", "train", "evaluate", "gate", "promote")
_SWAP_SECONDS = 30.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """Which images with which truth are played, how many at most, the seed, and the share left unlabelled."""

    images: Path
    truth: Path
    limit: int | None = None
    seed: int = 7
    share_left_open: float = 0.15


@dataclass
class Loop:
    """One run of the loop on a running stack; every stage is reported as it ends."""

    stack: Stack
    service: ReviewService
    options: LoopOptions
    report: LoopReport
    say: Callable[[str], None]

    def run(self) -> bool:
        """Whether every stage came and held; stops at the first stage that leaves nothing to go on with."""
        taxonomy = self.service.taxonomy
        ingested = self._ingest()
        if not ingested.records:
            raise LoopError(str(self.options.images), "no usable image", "at least one", "Name another folder.")
        play = self._play(ingested, taxonomy)
        try:
            return self._run(play)
        finally:
            play.cast.close()

    def _run(self, play: Play) -> bool:
        if not self._preannotate().holds:
            return False
        for stage, work in (("tier1", play.tier1), ("tier2", play.tier2), ("tier3", play.tier3)):
            self.report.timed(stage, work)
        before = champion_version(self.stack.home.models)
        with self._caller(play) as caller:
            job = self._retrain()
            if job.state is not JobState.SUCCEEDED:
                raise LoopError("retraining", job.detail, "a finished job", "Look into logs/worker.log.")
            self.report.timed("swap", lambda: self._swap(caller, before))
        self.report.timed("refresh", lambda: self._refresh(play, before))
        return self.report.complete

    def _ingest(self) -> IngestReport:
        outcome: list[IngestReport] = []

        def work() -> tuple[Mapping[str, Any], Mapping[str, bool]]:
            register_people(self.stack, self.service)
            set_up(self.service, self.say)
            options = self.options
            report = ingest(
                options.images, self.stack.home, options.truth, self.service.register, options.limit, self._progress
            )
            self.service.settle()
            outcome.append(report)
            counts = {
                "images": len(report.records),
                "new": report.registered,
                "skipped": len(report.skipped),
                "synthetic": sum(record.synthetic for record in report.records),
            }
            return counts, {"at least twenty images were taken in": len(report.records) >= 20}

        self.report.timed("ingest", work)
        return outcome[0]

    def _preannotate(self) -> StageLine:
        def work() -> tuple[Mapping[str, Any], Mapping[str, bool]]:
            champion = ensure_champion(self.stack.home, self.say)
            report = preannotate(self.stack, self.service.project(Tier.TECHNICIAN), self.say, self._steps)
            counts = {
                "model_version": champion,
                "predicted": report.predicted,
                "current": report.current,
                "failed": len(report.failed),
            }
            return counts, {"every waiting task carries a prediction": not report.failed and report.predicted > 0}

        return self.report.timed("preannotate", work)

    def _play(self, ingested: IngestReport, taxonomy: Taxonomy) -> Play:
        records = {record.image_id: record for record in ingested.records}
        truths = read_truths(read_rows(self.options.truth, taxonomy), records)
        unlabelled = left_open(truths, self.options.share_left_open, self.options.seed)
        played = [truth for image_id, truth in truths.items() if image_id not in unlabelled]
        return Play(
            desk=_ServiceDesk(self.service),
            cast=self._cast(taxonomy),
            taxonomy=taxonomy,
            truths=truths,
            records=records,
            script=draw_script(played, Shares(), self.options.seed),
            left_open=unlabelled,
        )

    def _cast(self, taxonomy: Taxonomy) -> Cast:
        by_role: dict[Role, list[Annotator]] = {}
        for login in self.stack.people:
            annotator = Annotator(self.stack.label_studio_url, login.email, login.token, taxonomy)
            by_role.setdefault(login.role, []).append(annotator)
        return Cast(
            technician=by_role[Role.TECHNICIAN][0],
            dermatologists=tuple(by_role[Role.DERMATOLOGIST]),
            quality_reader=by_role[Role.QA][0],
        )

    def _caller(self, play: Play) -> SteadyCaller:
        open_id = min(play.left_open)
        record = play.records[open_id]
        task = {"id": 1, "data": {"image": f"/data/local-files/?d={record.uri}", "image_id": open_id}}
        secrets = self.stack.secrets
        config = labelling_config(self.service.taxonomy, Tier.TECHNICIAN)
        return SteadyCaller(self.stack.backend_url, (secrets.backend_user, secrets.backend_password), task, config)

    def _retrain(self) -> Job:
        """The finished retraining job; its stages are reported as the worker tells them."""
        home = self.stack.home
        queue = JobQueue.open(home.jobs_db)
        job_id, told = request_retrain(queue, "the loop's labels are approved", "loop"), 0
        while True:
            job = queue.get(job_id)
            for line in read_stages(home.root, job_id)[told:]:
                told += 1
                if line.stage in _JOB_STAGES:
                    self.report.add(self._judged(line))
            if job.state.final:
                queue.close()
                return job
            time.sleep(_POLL_SECONDS)

    def _judged(self, line: StageLine) -> StageLine:
        if line.stage == "freeze":
            states = self.service.states()
            promises = {
                "every approved image is in the dataset": line.counts["images"] == states.get("approved", 0),
                "no split is empty": all(line.counts["splits"].values()),
            }
        elif line.stage == "gate":
            worse = offer_worse_candidate(self.stack.home)
            line = StageLine(line.stage, line.seconds + worse.seconds, {**line.counts, "worse_candidate": worse.counts})
            promises = {
                "the candidate passed": bool(line.counts.get("passed")),
                "a worse candidate was refused with its reasons": not worse.counts["passed"]
                and bool(worse.counts["reasons"]),
            }
        else:
            promises = {}
        return StageLine(line.stage, line.seconds, line.counts, (*line.failures, *broken(promises)))

    def _swap(self, caller: SteadyCaller, before: str | None) -> tuple[Mapping[str, Any], Mapping[str, bool]]:
        wanted = champion_version(self.stack.home.models)
        began = time.monotonic()
        while wanted not in caller.report.versions and time.monotonic() - began < _SWAP_SECONDS:
            time.sleep(0.1)
        time.sleep(1.0)
        seen = caller.report
        counts = {
            "calls": seen.calls,
            "failed": len(seen.failures),
            "versions": list(seen.versions),
            "errors": list(seen.failures[:3]),
        }
        promises = {
            "the backend serves the promoted version": wanted in seen.versions and wanted != before,
            "the client saw the former version too": before in seen.versions,
            "no call failed": not seen.failures,
        }
        return counts, promises

    def _refresh(self, play: Play, before: str | None) -> tuple[Mapping[str, Any], Mapping[str, bool]]:
        version = champion_version(self.stack.home.models)
        project = self.service.project(Tier.TECHNICIAN)
        report = preannotate(self.stack, project, self.say, self._steps)
        versions = play.cast.technician.suggestion_versions(project)
        fresh = sum(version in shown for shown in versions.values())
        counts = {
            "model_version": version,
            "unlabelled": len(versions),
            "fresh": fresh,
            "predicted": report.predicted,
            "current": report.current,
        }
        return counts, {
            "the version changed": version != before,
            "there are unlabelled tasks": bool(versions),
            "every unlabelled task carries the new version": fresh == len(versions),
        }

    def _progress(self, done: int, total: int) -> None:
        self._steps("Importing", done, total)

    def _steps(self, what: str, done: int, total: int) -> None:
        if done == total:
            self.say(f"{what}: {total}")


class _ServiceDesk:
    """The review service as the players need it."""

    def __init__(self, service: ReviewService) -> None:
        self._service = service

    def project(self, tier: Tier) -> int:
        """Label Studio's id of the tier's project."""
        return self._service.project(tier)

    def settle(self) -> None:
        """Returns once what was submitted has been taken in and the work that follows lies in Label Studio."""
        self._service.settle()

    def states(self) -> Mapping[str, int]:
        """How many images stand in each review state."""
        return Counter(self._service.states())


def read_truths(table: MetadataTable, records: Mapping[str, ImageRecord]) -> dict[str, Annotation]:
    """The table's truth for each image that it names with boxes or a finding; images without one are not played."""
    truths = {}
    for image_id, record in records.items():
        row = table.find(record.original_name)
        truth = row.truth(image_id, record.size) if row else None
        if truth is not None and all(not lesion.attributes for lesion in truth.lesions):
            truths[image_id] = truth
    if not truths:
        raise LoopError(str(table.path), "no boxes", "boxes for the images", "Name a table with bbox columns.")
    return truths
