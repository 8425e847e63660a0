"""Damaged inputs: every reader reads right or names what is wrong; none crashes, none gives a box outside its image."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders_converters import TAXONOMY, a_lesion, an_answer, an_item
from builders_formats import POINTS, converted, with_bytes

from converters.convert import read_all
from converters.dataset import DatasetItem, Split
from converters.errors import ConversionError
from converters.formats.contract import Format, ReadSettings
from converters.formats.table import FORMATS
from converters.geometry import ImageSize, KeyPoint, PixelBox, Polygon

FEW = int(os.environ.get("DERMLOOP_MUTATIONS", "40"))
MANY = 1000
BOTH_WAYS = [entry for entry in FORMATS.values() if entry.read and entry.write]
TEXTS = (".json", ".yaml", ".txt", ".xml", ".csv", ".manifest")


def items() -> tuple[DatasetItem, ...]:
    outline = Polygon(((10.0, 10.0), (50.0, 12.0), (40.0, 60.0)))
    drawn = a_lesion("mel", outline.envelope(), shape=outline, keypoints=(KeyPoint(20, 20, POINTS[0]),))
    plain = a_lesion("mel", PixelBox(60, 5, 90, 75))
    made = [replace(an_item(f"{n}.png"), split=split) for n, split in enumerate((Split.TRAIN, Split.TRAIN, Split.TEST))]
    return tuple(replace(item, truth=an_answer(drawn, plain, image_id=item.record.image_id)) for item in made)


@pytest.mark.parametrize("entry", BOTH_WAYS, ids=lambda entry: entry.name)
def test_mutated_files_are_read_or_refused(entry: Format, tmp_path: Path) -> None:
    survive(entry, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("entry", BOTH_WAYS, ids=lambda entry: entry.name)
def test_a_thousand_mutated_files_are_read_or_refused(entry: Format, tmp_path: Path) -> None:
    survive(entry, tmp_path, MANY)


def survive(entry: Format, folder: Path, count: int) -> None:
    whole = folder / "whole"
    found = with_bytes(items(), folder / "in")
    if entry.name == "yolo-classify":
        found = tuple(replace(i, truth=replace(i.truth, lesions=i.truth.lesions[1:])) for i in found)
    converted(found, entry, whole, allow_loss=True, read_back=False)
    sizes = dict.fromkeys((path.stem for path in whole.rglob("*")), ImageSize(100, 80))
    settings = ReadSettings(TAXONOMY, sizes=sizes)
    generator = random.Random(entry.name)
    told = 0
    for damaged in mutations(whole, generator, count):
        try:
            read, entries = read_all(damaged, entry, settings)
        except ConversionError as error:
            told += len(str(error)) > 20
            continue
        told += bool(entries)
        for item in read:
            assert all(inside(lesion.box, item.record.size) for lesion in item.truth.lesions), item
    assert told > count / 10


def inside(box: PixelBox, size: ImageSize) -> bool:
    """Whether a box lies in its image, but for a pixel."""
    limits = (box.x_min >= -1, box.y_min >= -1, box.x_max <= size.width + 1, box.y_max <= size.height + 1)
    return all(limits)


def mutations(whole: Path, generator: random.Random, count: int) -> Iterator[Path]:
    """The folder with one of its text files (or, where it has none, any file) damaged; put right again afterwards."""
    files = sorted(path for path in whole.rglob("*") if path.suffix in TEXTS)
    files = files or sorted(path for path in whole.rglob("*") if path.suffix == ".png" and path.is_file())
    for _ in range(count):
        path = generator.choice(files)
        before = path.read_bytes()
        if generator.random() < 0.02:
            path.unlink()
        else:
            path.write_bytes(damaged_bytes(before, generator))
        yield whole
        path.write_bytes(before)


def damaged_bytes(whole: bytes, generator: random.Random) -> bytes:
    content = bytearray(whole or b"0")
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(content)) if content else 0
        kind = generator.random()
        if kind < 0.3:
            del content[at : at + generator.randint(1, 20)]
        elif kind < 0.5:
            content[at:at] = content[at : at + generator.randint(1, 20)]
        elif content:
            content[min(at, len(content) - 1)] = generator.choice(b'0123456789-."{}[],:<>/enul\xff \n')
    return bytes(content)


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    for entry in FORMATS.values():
        if entry.read is None:
            continue
        try:
            read, _ = read_all(tmp_path / "gone", entry, ReadSettings(TAXONOMY))
        except ConversionError as error:
            assert "gone" in str(error)
        else:
            assert read == ()
    shutil.rmtree(tmp_path / "gone", ignore_errors=True)
