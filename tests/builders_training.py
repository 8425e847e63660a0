"""Builders for training tests: frozen dataset versions of small drawn pictures, and evaluation cases."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from builders_serving import pixels
from PIL import Image, ImageDraw

from converters import taxonomy
from converters.annotation import Annotation, Finding, ImageRecord, Lesion, TruthLevel
from converters.dataset import Dataset, DatasetItem, DatasetVersion, Split, freeze
from converters.geometry import ImageSize, PixelBox, Polygon
from converters.taxonomy import Target
from training.cases import CaseTable, ImageCase, LesionCase, Part
from training.config import EvaluationConfig
from training.report import EvaluationReport, summarise, summarise_slices

TAXONOMY = taxonomy.read()
COLOURS = {"mel": (60, 20, 20), "nv": (150, 90, 60), "bcc": (230, 120, 160)}

PATCHES = ((20, 30, 60, 70), (25, 20, 70, 80), (10, 40, 50, 90), (30, 30, 75, 60))
QUICK = EvaluationConfig(resamples=20, minimum_slice=2)


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


def report_of(
    images: int = 60,
    *,
    bundle: str = "candidate",
    right: float = 0.8,
    melanoma_right: float | None = None,
    dark_skin_right: float | None = None,
    score: float = 0.9,
    digest: str = "d" * 64,
    seed: int = 0,
) -> EvaluationReport:
    """A report on made-up cases: one lesion an image, found with the given chance, named with the given chance.

    Every fourth lesion is a melanoma, every third image shows skin type 6; both may have chances of their own.
    """
    generator = np.random.default_rng(seed)
    classes = TAXONOMY.classes(Target.SEVERITY)
    cases = []
    for number in range(images):
        melanoma, dark = number % 4 == 0, number % 3 == 0
        chance = melanoma_right if melanoma and melanoma_right is not None else right
        chance = dark_skin_right if dark and dark_skin_right is not None else chance
        truth = 2 if melanoma else 0
        named = truth if generator.random() < chance else 2 - truth
        found = bool(generator.random() < chance)
        shares = tuple(0.8 if column == named else 0.1 for column in range(3))
        reading = LesionCase("mel" if melanoma else "nv", truth, shares, melanoma, 1 - shares[0], named == 2, found)
        hits = tuple((found and row < 6,) for row in range(10))
        slices = (("skin_type", "6" if dark else "2"),)
        cases.append(ImageCase(f"{number:04d}", f"{number:04d}", 1, (score,), hits, (found,), 0, (reading,), slices))
    table = CaseTable(tuple(cases), classes)
    config = EvaluationConfig(resamples=50)
    return EvaluationReport(
        bundle=bundle,
        dataset="dataset",
        split="test",
        split_digest=digest,
        classes=classes,
        metrics=summarise(table, config, frozenset(Part)),
        cases=tuple(cases),
        slices=summarise_slices(table, config, frozenset(Part)),
        ms_per_image=20.0,
    )


def served_version(folder: Path, ungradable: bool = False) -> DatasetVersion:
    """Pictures with one dark patch each, which the tiny detector finds exactly, and one lesion-free picture."""
    sources, items = {}, []
    (folder / "sources").mkdir(parents=True)
    for number, patch in enumerate((*PATCHES, None)):
        buffer = io.BytesIO()
        Image.fromarray(pixels(patches=(patch,) if patch else ())).save(buffer, "PNG")
        box = PixelBox(*(float(edge) for edge in patch)) if patch else None
        item = item_of(buffer.getvalue(), box, "mel" if number % 2 else "nv", Split.TEST, skin_type=number % 2 + 1)
        sources[item.record.image_id] = folder / "sources" / f"{number}.png"
        sources[item.record.image_id].write_bytes(buffer.getvalue())
        items.append(item)
    if ungradable:
        blank = io.BytesIO()
        Image.new("RGB", (80, 80), "black").save(blank, "PNG")
        item = item_of(blank.getvalue(), None, None, Split.TEST, Finding.UNGRADABLE)
        sources[item.record.image_id] = folder / "sources" / "blank.png"
        sources[item.record.image_id].write_bytes(blank.getvalue())
        items.append(item)
    return freeze(Dataset(TAXONOMY, tuple(items)), sources, folder / "datasets", {})


def disputed(folder: Path, counts: dict[Split, int]) -> DatasetVersion:
    """Pictures with a melanoma each, on which one reader of three said naevus, outlined by a triangle."""
    plain = version_of(folder / "plain", counts, ("mel",))

    def changed(lesion: Lesion) -> Lesion:
        box = lesion.box
        corners = ((box.centre[0], box.y_min), (box.x_max, box.y_max), (box.x_min, box.y_max))
        return replace(lesion, shape=Polygon(corners), probabilities=(("mel", 2 / 3), ("nv", 1 / 3)))

    items = tuple(
        replace(item, truth=replace(item.truth, lesions=tuple(map(changed, item.truth.lesions))))
        for item in plain.dataset.items
    )
    sources = {item.record.image_id: plain.path(item) for item in plain.dataset.items}
    return freeze(Dataset(TAXONOMY, items), sources, folder / "datasets", {})
