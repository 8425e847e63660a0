"""The three tiers, played: each person works off their queue in Label Studio, the review service moves the work on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from converters.annotation import Annotation, ImageRecord
from converters.geometry import ImageSize
from converters.label_studio.controls import Tier, Verdict
from converters.taxonomy import Taxonomy
from dermloop.errors import LoopError
from dermloop.loop.annotators import Annotator, OpenTask
from dermloop.loop.readers import Reading, Script, dermatologist, quality_reader, technician

_ROUNDS = 12


class Desk(Protocol):
    """What the players need of the review service."""

    def project(self, tier: Tier) -> int:
        """Label Studio's id of the tier's project."""

    def settle(self) -> None:
        """Returns once every submitted answer has been taken in and the work that follows lies in Label Studio."""

    def states(self) -> Mapping[str, int]:
        """How many images stand in each review state."""


@dataclass(frozen=True, slots=True)
class Cast:
    """The people of the loop, signed in, each with their own token."""

    technician: Annotator
    dermatologists: tuple[Annotator, ...]
    quality_reader: Annotator

    def close(self) -> None:
        """Signs everybody out."""
        for annotator in (self.technician, *self.dermatologists, self.quality_reader):
            annotator.close()


@dataclass
class Play:
    """One run through the tiers: the truth that is played, and the counts that the stages report."""

    desk: Desk
    cast: Cast
    taxonomy: Taxonomy
    truths: Mapping[str, Annotation]
    records: Mapping[str, ImageRecord]
    script: Script
    left_open: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)

    def tier1(self) -> tuple[Mapping[str, Any], Mapping[str, bool]]:
        """The technician labels every image but those left open for the next model."""
        self._technician_works()
        labelled = self.counts["labelled"]
        return (
            {
                "labelled": labelled,
                "left_open": len(self.left_open),
                "suggested": self.counts["suggested"],
                "shifted": len(self.script.shifted),
                "missed": len(self.script.missed),
                "confused": len(self.script.confused),
            },
            {
                "every image meant for labelling was labelled": labelled == len(self.truths) - len(self.left_open),
                "the technician saw the model's suggestions": self.counts["suggested"] > 0,
            },
        )

    def tier2(self) -> tuple[Mapping[str, Any], Mapping[str, bool]]:
        """The dermatologists read until nothing waits for them; what they send back is marked anew."""
        before = self.counts.copy()
        self._until_quiet((self._dermatologists_work, self._technician_works))
        now = self.counts - before
        wanted = (Verdict.ACCEPT, Verdict.CORRECT, Verdict.SEND_BACK)
        counts = {
            "readings": now["readings"],
            **{_snake(verdict): now[f"tier2 {verdict}"] for verdict in wanted},
            "resubmitted": now["resubmitted"],
            "reasons_seen": now["reasons seen"],
            "second_readings": now["second readings"],
            "called_back": now["called back"],
            "disputed": self.desk.states().get("disputed", 0),
        }
        promises = {f"dermatologists chose {v!r} at least once": now[f"tier2 {v}"] > 0 for v in wanted}
        promises["whoever was sent work back saw the reason"] = now["resubmitted"] == now["reasons seen"] > 0
        promises["two dermatologists disagreed on some"] = counts["disputed"] > 0
        return counts, promises

    def tier3(self) -> tuple[Mapping[str, Any], Mapping[str, bool]]:
        """The QA reader decides until nothing is open; what is sent back goes through the tiers again."""
        before = self.counts.copy()
        self._until_quiet((self._quality_reader_works, self._technician_works, self._dermatologists_work))
        now = self.counts - before
        wanted = (Verdict.APPROVE, Verdict.CORRECT, Verdict.SEND_BACK, Verdict.EXCLUDE)
        states = self.desk.states()
        counts = {
            "decisions": now["decisions"],
            **{_snake(verdict): now[f"tier3 {verdict}"] for verdict in wanted},
            "adjudicated": now["adjudicated"],
            "resubmitted": now["resubmitted"],
            "states": dict(sorted(states.items())),
        }
        finished = states.get("approved", 0) + states.get("excluded", 0)
        promises = {f"QA chose {verdict!r} at least once": now[f"tier3 {verdict}"] > 0 for verdict in wanted}
        promises["QA decided what two dermatologists disagreed on"] = now["adjudicated"] > 0
        promises["every labelled image was approved or excluded"] = finished == len(self.truths) - len(self.left_open)
        return counts, promises

    def _until_quiet(self, works: Sequence[Callable[[], int]]) -> None:
        for _ in range(_ROUNDS):
            self.desk.settle()
            if not sum(work() for work in works):
                return
        raise LoopError("the tiers", f"work after {_ROUNDS} rounds", "an end", "Look at `dermloop review status`.")

    def _technician_works(self) -> int:
        tasks = self._open(self.cast.technician, Tier.TECHNICIAN)
        for task in tasks:
            returned = task.round > 1
            truth, size = self.truths[task.image_id], self._size(task.image_id)
            reading = technician(truth, size, self.script, self.taxonomy, returned)
            if self._submit(self.cast.technician, task, reading):
                self.counts["resubmitted" if returned else "labelled"] += 1
                self.counts["suggested"] += bool(task.suggestions) and not returned
                self.counts["reasons seen"] += returned and self.reasons.get(task.image_id, "\0") in task.note
        self.desk.settle()
        return len(tasks)

    def _dermatologists_work(self) -> int:
        read: Counter[str] = Counter()
        seen = 0
        for number, reader in enumerate(self.cast.dermatologists):
            tasks = self._open(reader, Tier.DERMATOLOGIST)
            seen += len(tasks)
            for task in tasks:
                shown = task.suggestions[0].lesions if task.suggestions else ()
                truth, dissents = self.truths[task.image_id], number == 1
                reading = dermatologist(truth, shown, self.script, self.taxonomy, dissents)
                read[task.image_id] += self._decide(reader, task, reading, "tier2")
        self.counts["readings"] += read.total()
        self.counts["second readings"] += sum(count > 1 for count in read.values())
        self.desk.settle()
        return seen

    def _quality_reader_works(self) -> int:
        reader = self.cast.quality_reader
        tasks = self._open(reader, Tier.QA)
        for task in tasks:
            readings = [suggestion.lesions for suggestion in task.suggestions]
            reading = quality_reader(self.truths[task.image_id], readings, self.script, returned=task.round > 1)
            if self._decide(reader, task, reading, "tier3"):
                self.counts["decisions"] += 1
                self.counts["adjudicated"] += len(readings) > 1 and reading.verdict is Verdict.CORRECT
        self.desk.settle()
        return len(tasks)

    def _decide(self, reader: Annotator, task: OpenTask, reading: Reading, tier: str) -> bool:
        if not self._submit(reader, task, reading):
            return False
        self.counts[f"{tier} {reading.verdict}"] += 1
        if reading.verdict is Verdict.SEND_BACK:
            self.reasons[task.image_id] = reading.reason
        return True

    def _submit(self, reader: Annotator, task: OpenTask, reading: Reading) -> bool:
        taken = reader.submit(task, reading, self._size(task.image_id))
        self.counts["called back"] += not taken
        return taken

    def _open(self, reader: Annotator, tier: Tier) -> list[OpenTask]:
        tasks = reader.open_tasks(self.desk.project(tier), self._size)
        return [task for task in tasks if task.image_id in self.truths and task.image_id not in self.left_open]

    def _size(self, image_id: str) -> ImageSize:
        return self.records[image_id].size


def left_open(image_ids: Iterable[str], share: float, seed: int) -> frozenset[str]:
    """A seeded share of the images, at least three: nobody labels them before the next model draws on them."""
    order = sorted(image_ids, key=lambda image_id: hashlib.sha256(f"open:{seed}:{image_id}".encode()).hexdigest())
    return frozenset(order[: max(3, round(share * len(order)))])


def _snake(verdict: Verdict) -> str:
    return verdict.value.lower().replace(" ", "_")
