"""The round trip that every format inherits: what is written comes back, and what does not is on the list."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from builders_converters import TAXONOMY
from builders_formats import converted, datasets, with_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.compare import STICKS_OUT
from converters.convert import read_all
from converters.dataset import DatasetItem
from converters.errors import DatasetError
from converters.formats.contract import Format, ReadSettings
from converters.formats.table import FORMATS, sniffed
from converters.report import Entry, Kind

EXAMPLES = int(os.environ.get("DERMLOOP_EXAMPLES", "5"))
"""Datasets for each format; a release raises it."""

BOTH_WAYS = [entry for entry in FORMATS.values() if entry.read and entry.write]
NO_PIXEL = (
    "is gone: it covers no pixel of the image",
    "is left out with its lesions: one covers no pixel of the image",
)
KNOWN = {
    "yolo-obb": (STICKS_OUT, "came back although nobody drew it"),
    "masks": NO_PIXEL,
    "masks-index": NO_PIXEL,
    "ground-truth-segmentation": NO_PIXEL,
}
"""What a format cannot keep of the datasets drawn here, and says so; anything else would be a defect."""

ONE_CLASS = {"masks-index", "ground-truth-segmentation", "ground-truth-classes", "yolo-classify"}
"""Formats in which regions of two classes cover one another, or an image has a single class."""


@pytest.mark.parametrize("entry", BOTH_WAYS, ids=lambda entry: entry.name)
@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(data=st.data(), bytes_at_hand=st.booleans())
def test_what_is_written_comes_back(entry: Format, data: st.DataObject, bytes_at_hand: bool) -> None:
    come_back(entry, data, bytes_at_hand)


@pytest.mark.slow
@pytest.mark.parametrize("entry", BOTH_WAYS, ids=lambda entry: entry.name)
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data(), bytes_at_hand=st.booleans())
def test_what_is_written_comes_back_of_sixty_datasets(entry: Format, data: st.DataObject, bytes_at_hand: bool) -> None:
    come_back(entry, data, bytes_at_hand)


def come_back(entry: Format, data: st.DataObject, bytes_at_hand: bool) -> None:
    found: tuple[DatasetItem, ...] = data.draw(datasets().filter(bool))
    if entry.name in ONE_CLASS:
        found = tuple(replace(item, truth=replace(item.truth, lesions=item.truth.lesions[:1])) for item in found)
    with tempfile.TemporaryDirectory() as folder:
        if bytes_at_hand or entry.name in ("crops", "yolo-classify"):
            found = with_bytes(found, Path(folder) / "in")
        target = Path(folder) / "out"
        try:
            report = converted(found, entry, target, allow_loss=True)
        except DatasetError as error:
            assert "no image to write" in str(error) and not target.exists()
            return
        lost = [e for e in report.entries if e.kind is Kind.LOST and not _is_known(entry, e)]
        assert list(map(str, lost)) == []
        sizes = {Path(item.record.uri).stem: item.record.size for item in found}
        items, _ = read_all(target, sniffed(target), ReadSettings(TAXONOMY, sizes=sizes))
        assert sniffed(target).name == entry.name or entry.name.startswith("yolo")
        assert len(items) <= report.images


def _is_known(entry: Format, found: Entry) -> bool:
    return found.reason in KNOWN.get(entry.name, ())


@pytest.mark.parametrize("entry", BOTH_WAYS, ids=lambda entry: entry.name)
@settings(deadline=None, max_examples=2, suppress_health_check=list(HealthCheck))
@given(found=datasets().filter(bool))
def test_the_same_input_gives_the_same_bytes(entry: Format, found: tuple[DatasetItem, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = with_bytes(found, Path(folder) / "in")
        contents = []
        for name in ("one", "two"):
            try:
                converted(found, entry, Path(folder) / name, allow_loss=True, read_back=False)
            except DatasetError:
                return
            root = Path(folder) / name
            contents.append({str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()})
        assert contents[0] == contents[1]
