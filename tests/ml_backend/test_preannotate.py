"""Pre-annotation stores every task once, goes on after an interruption, and names what failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from builders_serving import bundle, encoded, pixels

from converters import taxonomy
from converters.label_studio.config import labelling_config
from converters.label_studio.controls import Tier
from ml_backend.champions import FolderChampions
from ml_backend.errors import LabelStudioError
from ml_backend.fetch import ImageSource, Reach
from ml_backend.host import PipelineHost
from ml_backend.label_studio import NewPrediction, StoredTask
from ml_backend.preannotate import PreannotationReport, preannotate
from ml_backend.service import PredictionService


class Project:
    """A project in memory that may break down after some pushes."""

    def __init__(self, names: Sequence[str], breaks_after: int = 99) -> None:
        self.names = names
        self.stored: dict[int, list[NewPrediction]] = {}
        self.shown: str | None = None
        self.pushes_left = breaks_after

    def label_config(self, project_id: int) -> str:
        return labelling_config(taxonomy.read(), Tier.TECHNICIAN)

    def tasks(self, project_id: int) -> Iterator[StoredTask]:
        for number, name in enumerate(self.names, 1):
            versions = frozenset(p.model_version for p in self.stored.get(number, ()))
            yield StoredTask(number, (("image", f"/data/local-files/?d={name}"),), versions)

    def push(self, project_id: int, predictions: Sequence[NewPrediction]) -> int:
        if self.pushes_left == 0:
            raise LabelStudioError("predictions", "status 500", "acceptance", "Try again.")
        self.pushes_left -= 1
        for prediction in predictions:
            self.stored.setdefault(prediction.task_id, []).append(prediction)
        return len(predictions)

    def show_version(self, project_id: int, version: str) -> None:
        self.shown = version


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, PredictionService, ImageSource]:
    (tmp_path / "a.png").write_bytes(encoded(pixels()))
    (tmp_path / "bad.png").write_bytes(b"")
    return tmp_path, PredictionService(PipelineHost(FolderChampions(tmp_path / "models"))), ImageSource(Reach(tmp_path))


def test_every_task_is_predicted_once_and_shown(run: tuple[Path, PredictionService, ImageSource]) -> None:
    home, service, source = run
    version = bundle(home).version
    project, seen = Project(["a.png"] * 5), list[tuple[int, int]]()
    report = preannotate(project, 1, service, source, lambda done, total: seen.append((done, total)), 2)
    assert report == PreannotationReport(version, predicted=5)
    assert seen == [(2, 5), (4, 5), (5, 5)] and project.shown == version
    assert preannotate(project, 1, service, source) == PreannotationReport(version, current=5)
    assert [len(stored) for stored in project.stored.values()] == [1] * 5


def test_pushed_regions_carry_the_link_to_their_heat_map(run: tuple[Path, PredictionService, ImageSource]) -> None:
    home, service, source = run
    bundle(home)
    project = Project(["a.png"])
    preannotate(project, 1, service, source, link_for=lambda address: f"http://heat{address}")
    rows = [row for stored in project.stored[1] for row in stored.result if row["type"] == "rectanglelabels"]
    assert [row["meta"]["text"] for row in rows] == [["Where the model looked: http://heat/data/local-files/?d=a.png"]]


def test_an_interrupted_run_goes_on_where_it_stopped(run: tuple[Path, PredictionService, ImageSource]) -> None:
    home, service, source = run
    bundle(home)
    project = Project(["a.png"] * 5, breaks_after=1)
    with pytest.raises(LabelStudioError):
        preannotate(project, 1, service, source, chunk_size=2)
    project.pushes_left = 9
    report = preannotate(project, 1, service, source, chunk_size=2)
    assert (report.predicted, report.current) == (3, 2)


def test_a_bad_image_is_named_and_the_rest_goes_on(run: tuple[Path, PredictionService, ImageSource]) -> None:
    home, service, source = run
    bundle(home)
    report = preannotate(Project(["a.png", "bad.png", "a.png"]), 1, service, source)
    assert report.predicted == 2 and [number for number, _ in report.failed] == [2]


def test_a_new_champion_makes_every_task_due_again(run: tuple[Path, PredictionService, ImageSource]) -> None:
    home, service, source = run
    bundle(home)
    project = Project(["a.png"] * 2)
    preannotate(project, 1, service, source)
    version = bundle(home, name="next").version
    service.host.refresh()
    assert preannotate(project, 1, service, source) == PreannotationReport(version, predicted=2)


def test_what_a_person_has_in_hand_is_left_alone(run: tuple[Path, PredictionService, ImageSource]) -> None:
    class InHand(Project):
        def tasks(self, project_id: int) -> Iterator[StoredTask]:
            waiting, answered, returned, blind = super().tasks(project_id)
            yield waiting
            yield replace(blind, data=(*blind.data, ("blind", "blind")))
            yield replace(answered, answered=True)
            yield replace(returned, data=(*returned.data, ("reason", "Dr A: border")))

    home, service, source = run
    version, project = bundle(home).version, InHand(["a.png"] * 4)
    assert preannotate(project, 1, service, source) == PreannotationReport(version, predicted=1, left_alone=3)
    assert list(project.stored) == [1]
