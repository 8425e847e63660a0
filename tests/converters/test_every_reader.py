"""Damaged inputs: every reader reads right or names what is wrong; none crashes, none gives a box outside its image."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders_converters import TAXONOMY, a_lesion, an_answer, an_item, picture
from builders_formats import POINTS, converted, with_bytes
from PIL import Image

from converters.annotation import Lesion
from converters.convert import read_all
from converters.dataset import DatasetItem, Split
from converters.errors import ConversionError
from converters.formats.contract import Format, ReadSettings
from converters.formats.table import FORMATS, find
from converters.geometry import ImageSize, KeyPoint, PixelBox, Polygon

PAD = "patient_id,lesion_id,age,gender,fitspatrick,region,diagnostic,img_id,biopsed\n"
PUBLISHED = {
    "ham10000": (
        "HAM10000_metadata.csv",
        "lesion_id,image_id,dx,dx_type,age,sex,localization\nH1,a,mel,histo,60,male,back\nH2,b,nv,consensus,5,,\n",
    ),
    "isic": (
        "ISIC_2019_Training_GroundTruth.csv",
        "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\na,1.0,0.0,0,0,0,0,0,0,0\nb,0,1.0,0,0,0,0,0,0,0\n",
    ),
    "pad-ufes-20": ("metadata.csv", PAD + "P1,2,55,FEMALE,3.0,NECK,MEL,a.png,True\nP2,2,,,,,NEV,b.png,False\n"),
    "ph2": (
        "PH2_dataset.txt",
        "|| Name || Histological Diagnosis || Clinical Diagnosis || Colors ||\n"
        "|| a ||  || 2 || 4 ||\n|| b || x || 0 || ||\n",
    ),
    "fitzpatrick17k": (
        "fitzpatrick17k.csv",
        "md5hash,fitzpatrick_scale,label,qc\na,-1,malignant melanoma,\nb,4,basal cell carcinoma,1 Diagnostic\n",
    ),
    "ddi": (
        "ddi_metadata.csv",
        ",DDI_ID,DDI_file,skin_tone,disease\n0,1,a.png,56,melanoma-in-situ\n1,2,b.png,12,nevus\n",
    ),
}
FEW = int(os.environ.get("DERMLOOP_MUTATIONS", "40"))
MANY = 1000
BOTH_WAYS = [entry for entry in FORMATS.values() if entry.read and entry.write]
PICTURES = (".png", ".jpg", ".bmp")
TOKEN = re.compile(rb'-?\d+(?:\.\d+)?|"[^"\n]*"|(?<=[>, ])[\w./-]+(?=[<,\n ])|true|false|null')
ODD = (
    *(b"null", b"-1", b"1e308", b"1e999", b"NaN", b"-inf", b"0", b"1", b"0.5", b"-0.0", b"99999999999999999999"),
    *(b"[]", b"{}", b"[1,2]", b'{"a":null}', b'""', b'"x"', b"true", b"x", b"../../etc/passwd", b'"s3://"', b""),
)


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


@pytest.mark.parametrize("name", PUBLISHED)
def test_mutated_published_sets_are_read_or_refused(name: str, tmp_path: Path) -> None:
    survive_all(find(name), a_published(tmp_path, name), ReadSettings(TAXONOMY), FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_thousand_mutated_published_sets_are_read_or_refused(name: str, tmp_path: Path) -> None:
    survive_all(find(name), a_published(tmp_path, name), ReadSettings(TAXONOMY), MANY)


def a_published(folder: Path, name: str) -> Path:
    """A set of two pictures with masks, in its publisher's table."""
    table, text = PUBLISHED[name]
    (folder / table).write_text(text)
    for stem in ("a", "b"):
        (folder / f"{stem}.png").write_bytes(picture(width=100, height=80, format="PNG"))
        Image.fromarray(np.eye(80, 100) > 0).save(folder / f"{stem}_segmentation.png")
    return folder


def survive(entry: Format, folder: Path, count: int) -> None:
    whole = folder / "whole"
    found = with_bytes(items(), folder / "in")
    if entry.name == "yolo-classify":
        found = tuple(replace(i, truth=replace(i.truth, lesions=i.truth.lesions[1:])) for i in found)
    converted(found, entry, whole, allow_loss=True, read_back=False)
    sizes = dict.fromkeys((path.stem for path in whole.rglob("*")), ImageSize(100, 80))
    survive_all(entry, whole, ReadSettings(TAXONOMY, sizes=sizes), count)


def survive_all(entry: Format, whole: Path, settings: ReadSettings, count: int) -> None:
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
            assert all(inside(lesion, item.record.size) for lesion in item.truth.lesions), item
    assert told > count / 10


def inside(lesion: Lesion, size: ImageSize) -> bool:
    """Whether a box lies in its image, but for a pixel; an outline may stick out by the image's sides."""
    wide, high = (1, 1) if lesion.shape is None else (size.width, size.height)
    box = lesion.box
    limits = (box.x_min >= -wide, box.y_min >= -high, box.x_max <= size.width + wide, box.y_max <= size.height + high)
    return all(limits)


def mutations(whole: Path, generator: random.Random, count: int) -> Iterator[Path]:
    """The folder with one of its files damaged, a picture now and then; put right again afterwards."""
    found = sorted(path for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
    texts = [path for path in found if path.suffix not in PICTURES] or found
    pictures = [path for path in found if path.suffix in PICTURES] or found
    for _ in range(count):
        path = generator.choice(pictures if generator.random() < 0.1 else texts)
        before = path.read_bytes()
        if generator.random() < 0.02:
            path.unlink()
        else:
            damage = damaged_bytes if path.suffix in PICTURES or generator.random() < 0.4 else odd_values
            path.write_bytes(damage(before, generator))
        yield whole
        path.write_bytes(before)


def odd_values(whole: bytes, generator: random.Random) -> bytes:
    """The text with one or two of its numbers and words replaced by odd ones, so that its syntax mostly stays whole."""
    found = list(TOKEN.finditer(whole))
    for token in sorted(generator.sample(found, min(len(found), generator.randint(1, 2))), key=lambda t: -t.start()):
        whole = whole[: token.start()] + generator.choice(ODD) + whole[token.end() :]
    return whole


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
