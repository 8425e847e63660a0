"""Photographs to bench with: real pictures where a folder is named, else drawn ones, as large as a camera's."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import real_images
from PIL import Image

from converters import taxonomy
from converters.annotation import Annotation, ImageRecord
from converters.dataset import Dataset, DatasetItem, DatasetVersion, Split, freeze
from converters.geometry import ImageSize
from converters.splits import SplitPolicy, split
from dermloop.demo import DemoOptions, render

_DRAWN = 768
_GRAIN = 5
"""Deviation of the noise that an enlarged picture lacks: with it a file is as large as a camera's."""


def photographs(source: Path | None, count: int, side: int, folder: Path) -> DatasetVersion:
    """So many pictures enlarged to this side, split in three; every n-th of a folder with `metadata.csv`, or drawn."""
    found = list(_pictures(source, count))
    grain = np.random.default_rng(0).normal(0, _GRAIN, (side, side, 1)).astype(np.float32)
    items, sources = [], {}
    folder.mkdir(parents=True)
    for content, record, truth in found:
        image = Image.open(io.BytesIO(content)).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        noisy = np.clip(np.asarray(image, dtype=np.float32) + grain, 0, 255).astype(np.uint8)
        x, y = side / record.size.width, side / record.size.height
        lesions = tuple(replace(one, box=one.box.scaled(x, y), shape=None) for one in truth.lesions)
        image_id = _kept(noisy, folder)
        sources[image_id] = folder / f"{image_id}.jpg"
        record = replace(record, image_id=image_id, size=ImageSize(side, side))
        items.append(DatasetItem(record, replace(truth, image_id=image_id, lesions=lesions)))
    whole = split(Dataset(taxonomy.read(), tuple(items)), SplitPolicy())
    return freeze(whole, sources, folder.parent / "datasets", {"of": "bench"})


def pictures_to_evaluate(source: Path | None, count: int, folder: Path) -> DatasetVersion:
    """So many pictures as they are, all of them test; drawn ones come again after 96, in files of their own."""
    items, sources = [], {}
    folder.mkdir(parents=True)
    for number, (content, record, truth) in enumerate(_pictures(source, count)):
        marked = content if source else _marked(content, number)
        image_id = hashlib.sha256(marked).hexdigest()
        sources[image_id] = folder / f"{image_id}.jpg"
        sources[image_id].write_bytes(marked)
        items.append(DatasetItem(replace(record, image_id=image_id), replace(truth, image_id=image_id), Split.TEST))
    return freeze(Dataset(taxonomy.read(), tuple(items)), sources, folder.parent / "datasets", {"of": "bench"})


def _pictures(source: Path | None, count: int) -> Iterator[tuple[bytes, ImageRecord, Annotation]]:
    if source is not None:
        rows = list(real_images.items(source))
        step = max(len(rows) // count, 1)
        for item in islice(rows, 0, count * step, step):
            yield Path(item.record.uri).read_bytes(), item.record, item.truth
        return
    drawn = [render(1, number, DemoOptions(size=_DRAWN)) for number in range(min(count, 96))]
    for number in range(count):
        one = drawn[number % len(drawn)]
        yield one.content, one.record, one.truth


def _kept(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], folder: Path) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    image_id = hashlib.sha256(buffer.getvalue()).hexdigest()
    (folder / f"{image_id}.jpg").write_bytes(buffer.getvalue())
    return image_id


def _marked(content: bytes, number: int) -> bytes:
    """The same JPEG picture with a comment: another file."""
    return content[:2] + b"\xff\xfe\x00\x06" + number.to_bytes(4, "big") + content[2:]
