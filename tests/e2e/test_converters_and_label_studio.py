"""A real Label Studio takes what we write and exports it back equal: every region type, answers, links and facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
from builders_converters import TAXONOMY, a_lesion, an_answer, an_item
from builders_formats import converted

from converters.annotation import Confirmation, Finding, Relation, TruthLevel
from converters.compare import compare
from converters.convert import read_all
from converters.dataset import DatasetItem, Split
from converters.formats.contract import ReadSettings
from converters.formats.located import address_id
from converters.formats.table import find
from converters.geometry import Ellipse, KeyPoint, PixelBox, Polygon, RleMask, RotatedBox
from converters.report import Kind
from dermloop.stack import LABEL_STUDIO, Stack, free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
SECONDS = 60


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack.open(tmp_path_factory.mktemp("home"), free_ports())
    stack.start((LABEL_STUDIO,))
    yield stack
    stack.stop()


def items() -> tuple[DatasetItem, ...]:
    ring = np.zeros((80, 100), dtype=bool)
    ring[10:60, 10:60] = True
    ring[20:40, 20:40] = False
    shapes = (
        None,
        RotatedBox(50, 40, 30, 20, 25),
        Ellipse(40, 40, 20, 10, 30),
        Polygon(((10.0, 10.0), (60.0, 12.0), (40.0, 70.0))),
        RleMask.from_array(ring),
    )
    lesions = tuple(
        a_lesion(
            TAXONOMY.codes[number],
            PixelBox(10, 20, 30, 60) if shape is None else shape.envelope() or PixelBox(0, 0, 1, 1),
            shape=shape,
            region_id=f"r{number}",
            score=0.5 if number == 1 else None,
            keypoints=(KeyPoint(50, 50, "centre"),) if number == 3 else (),
            attributes=(("border", "irregular"),) if number == 0 else (),
        )
        for number, shape in enumerate(shapes)
    )
    facts = {"author": "qa@example.org", "level": TruthLevel.HISTOPATHOLOGY, "answers": (("rating:stars", "4"),)}
    link = Relation("r0", "r1", "bi")
    full = an_answer(*lesions, relations=(link,), redactions=(PixelBox(1, 2, 3, 4),), **facts)
    free, ungradable = an_answer(), an_answer(finding=Finding.UNGRADABLE)
    found = []
    for name, truth in (("ä 1.jpg", full), ("free.jpg", free), ("blurred.jpg", ungradable)):
        address = f"s3://derm/{name}"
        facts = {"image_id": address_id(address), "uri": address, "patient_id": "P1", "age": 61.0, "skin_type": 4}
        item = an_item(name, confirmation=Confirmation.HISTOPATHOLOGY, **facts)
        found.append(replace(item, truth=replace(truth, image_id=address_id(address)), split=Split.TEST))
    return tuple(found)


def test_what_is_imported_is_exported_equal(stack: Stack, tmp_path: Path) -> None:
    made = items()
    converted(made, find("label-studio"), tmp_path / "out")
    back = exported_again(stack, tmp_path / "out", tmp_path / "back.json")
    (found, entries) = read_all(back, find("label-studio"), ReadSettings(TAXONOMY))
    assert entries == ()
    carries = find("label-studio").carries
    by_uri = {item.record.uri: item for item in found}
    for item in made:
        differences = list(compare(item, by_uri[item.record.uri], carries, item.record.uri))
        assert [str(entry) for entry in differences if entry.kind is Kind.LOST] == []


def exported_again(stack: Stack, folder: Path, target: Path) -> Path:
    """The tasks after a trip through a new project."""
    session = requests.Session()
    session.headers["Authorization"] = f"Token {stack.admin.token}"
    url = stack.label_studio_url
    config = (folder / "labelling-config.xml").read_text(encoding="utf-8")
    project = session.post(f"{url}/api/projects", json={"title": "Trip", "label_config": config}, timeout=SECONDS)
    assert project.status_code == 201, project.text
    number = project.json()["id"]
    headers = {"Content-Type": "application/json"}
    content = (folder / "tasks.json").read_bytes()
    sent = session.post(f"{url}/api/projects/{number}/import", data=content, headers=headers, timeout=SECONDS)
    assert sent.status_code == 201, sent.text
    query = {"exportType": "JSON", "download_all_tasks": "true"}
    found = session.get(f"{url}/api/projects/{number}/export", params=query, timeout=SECONDS)
    found.raise_for_status()
    target.write_bytes(found.content)
    session.close()
    return target
