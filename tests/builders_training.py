"""Builders for training tests: frozen dataset versions of small drawn pictures, and evaluation cases."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from converters import taxonomy
from converters.annotation import Annotation, Finding, ImageRecord, Lesion, TruthLevel
from converters.dataset import Dataset, DatasetItem, DatasetVersion, Split, freeze
from converters.geometry import ImageSize, PixelBox

TAXONOMY = taxonomy.read()
COLOURS = {"mel": (60, 20, 20), "nv": (150, 90, 60), "bcc": (230, 120, 160)}


def drawn(seed: int, diagnosis: str | None = "nv", side: int = 96) -> tuple[bytes, PixelBox | None]:
    """A PNG of skin with one ellipse in the diagnosis' colour (none for None), and the ellipse's box."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(0, 6, (side, side, 3))
    image = Image.fromarray(np.clip(np.array([224, 190, 170]) + noise, 0, 255).astype(np.uint8))
    box = None
    if diagnosis is not None:
        x, y = generator.uniform(5, side * 0.4, 2)
        width, height = generator.uniform(side * 0.3, side * 0.5, 2)
        box = PixelBox(float(x), float(y), float(x + width), float(y + height))
        ImageDraw.Draw(image).ellipse((x, y, x + width, y + height), fill=COLOURS[diagnosis])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue(), box


def item_of(
    content: bytes,
    box: PixelBox | None,
    diagnosis: str | None,
    split: Split,
    finding: Finding | None = None,
    patient: str | None = None,
    skin_type: int | None = None,
) -> DatasetItem:
    """An item with one lesion, or lesion-free without a box."""
    image_id = hashlib.sha256(content).hexdigest()
    size = ImageSize(*Image.open(io.BytesIO(content)).size)
    record = ImageRecord(image_id, "", size, patient_id=patient, skin_type=skin_type, synthetic=True)
    lesions = (Lesion(box, diagnosis),) if box is not None else ()
    found = finding or (Finding.LESIONS if lesions else Finding.LESION_FREE)
    return DatasetItem(record, Annotation(image_id, found, lesions, TruthLevel.CONSENSUS), split)


def version_of(
    folder: Path, counts: dict[Split, int], diagnoses: Sequence[str | None] = ("mel", "nv", "bcc"), seed: int = 0
) -> DatasetVersion:
    """A frozen version of drawn pictures with so many images in each split, the diagnoses in turn."""
    sources: dict[str, Path] = {}
    items = []
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        for number in range(count):
            diagnosis = diagnoses[number % len(diagnoses)]
            content, box = drawn(seed * 100_000 + len(items), diagnosis)
            item = item_of(content, box, diagnosis, split)
            path = folder / "sources" / f"{item.record.image_id}.png"
            path.write_bytes(content)
            sources[item.record.image_id] = path
            items.append(item)
    return freeze(Dataset(TAXONOMY, tuple(items)), sources, folder / "datasets", {})
