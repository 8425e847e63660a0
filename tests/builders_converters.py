"""Small builders for converter tests: each gives a complete value and lets a test vary one thing."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from converters import taxonomy
from converters.annotation import Annotation, Finding, ImageRecord, Lesion, TruthLevel
from converters.dataset import Dataset, DatasetItem
from converters.geometry import ImageSize, PixelBox

TAXONOMY = taxonomy.read()
BOX = PixelBox(10, 20, 30, 60)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def a_lesion(diagnosis: str | None = "nv", box: PixelBox = BOX, **facts: Any) -> Lesion:
    severity = TAXONOMY.resolve(diagnosis).severity.value if diagnosis else None
    return Lesion(**{"box": box, "diagnosis": diagnosis, "severity": severity, **facts})


def an_answer(*lesions: Lesion, **facts: Any) -> Annotation:
    finding = Finding.LESIONS if lesions else Finding.LESION_FREE
    defaults = {"image_id": "image-1", "finding": finding, "lesions": lesions, "level": TruthLevel.QA, "author": "qa"}
    return Annotation(**{**defaults, **facts})


def a_record(name: str = "a.jpg", **facts: Any) -> ImageRecord:
    defaults = {"image_id": digest(name), "uri": name, "size": ImageSize(100, 80), "original_name": name}
    return ImageRecord(**{**defaults, **facts})


def an_item(name: str = "a.jpg", diagnosis: str | None = "nv", **facts: Any) -> DatasetItem:
    record = a_record(name, **facts)
    lesions = (a_lesion(diagnosis),) if diagnosis else ()
    return DatasetItem(record, an_answer(*lesions, image_id=record.image_id))


def a_dataset(*items: DatasetItem) -> Dataset:
    return Dataset(TAXONOMY, items)


def picture(width: int = 60, height: int = 40, seed: int = 0, **save: Any) -> bytes:
    """JPEG or PNG bytes of coloured noise, smooth enough to compress."""
    noise = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(buffer, **{"format": "JPEG", **save})
    return buffer.getvalue()


def stored(folder: Path, name: str, content: bytes, **facts: Any) -> DatasetItem:
    """An item whose image lies in `folder` under its name."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    size = ImageSize(*Image.open(io.BytesIO(content)).size)
    record = a_record(name, image_id=hashlib.sha256(content).hexdigest(), size=size, **facts)
    return DatasetItem(record, an_answer(image_id=record.image_id))
