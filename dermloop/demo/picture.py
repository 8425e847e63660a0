"""One synthetic picture with its exact truth."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters import taxonomy
from converters.annotation import Annotation, Finding, ImageRecord, Lesion, TruthLevel
from converters.geometry import ImageSize, RleMask
from dermloop.demo import camera, lesions, pattern, pigment
from dermloop.demo.outline import Window, outline
from dermloop.demo.pattern import Plane, Rng
from dermloop.demo.pigment import Picture, Tissue
from dermloop.demo.scene import DemoOptions, LesionPlan, Scene, View, plan

_JPEG_QUALITY = 93
_AUTHOR = "synthetic"
_TAXONOMY = taxonomy.read()


@dataclass(frozen=True, slots=True)
class DemoImage:
    """A synthetic picture: pixels of shape (height, width, 3), its JPEG bytes, and its exact truth."""

    name: str
    pixels: NDArray[np.uint8]
    content: bytes
    record: ImageRecord
    truth: Annotation
    lesion_ids: tuple[str, ...] = ()


def render(seed: int, index: int, options: DemoOptions | None = None) -> DemoImage:
    """Picture `index` of the series `seed`, with boxes and masks that fit to the pixel; same numbers, same bytes."""
    options = options or DemoOptions()
    scene = plan(seed, index, options)
    rng = np.random.default_rng((seed, index, 8))
    windows = tuple(outline(lesion, options.size) for lesion in scene.lesions)
    pixels = _draw(rng, scene, windows, options.size)
    content = _jpeg(pixels)
    name = f"synthetic-{seed}-{index:05d}.jpg"
    record = _record(scene, name, hashlib.sha256(content).hexdigest(), options.size)
    truth = _truth(scene, windows, record)
    return DemoImage(name, pixels, content, record, truth, tuple(lesion.lesion_id for lesion in scene.lesions))


def _draw(rng: Rng, scene: Scene, windows: tuple[Window, ...], size: int) -> NDArray[np.uint8]:
    skin = _skin(rng, scene, size)
    drawn = tuple(lesions.tissue(*pair) for pair in zip(scene.lesions, windows, strict=True))
    melanin = _with_lesions(skin.melanin, drawn, windows, "melanin")
    blood = _with_lesions(skin.blood, drawn, windows, "blood")
    height = _with_lesions(skin.height, drawn, windows, "height")
    picture = pigment.colours(np.maximum(melanin, 0.02), np.maximum(blood, 0.02))
    for lesion, window in zip(drawn, windows, strict=True):
        for veil in lesion.veils:
            picture[window.rows, window.columns] = pigment.covered(
                picture[window.rows, window.columns], veil, scene.patient.skin_type
            )
    lit = _lit(rng, picture, height, scene.view)
    covered = np.zeros((size, size), dtype=bool)
    for window in windows:
        covered[window.rows, window.columns] |= window.inside
    taken = camera.photographed(rng, lit, scene.view, scene.patient.skin_type, covered)
    return np.clip(taken * 255 + 0.5, 0, 255).astype(np.uint8)


def _skin(rng: Rng, scene: Scene, size: int) -> Tissue:
    shape = (size, size)
    dermoscopy = scene.view is View.DERMOSCOPY
    base = pigment.SKIN_MELANIN[scene.patient.skin_type] * float(rng.uniform(0.9, 1.1))
    mottle = pattern.clouds(rng, shape, size / 4, 3)
    lines = pattern.mesh(rng, shape, size / (26 if dermoscopy else 40), 0.3)
    melanin = np.float32(base) * (1 + 0.05 * mottle + 0.06 * lines)
    freckles = 0 if scene.patient.skin_type > 3 or dermoscopy else int(rng.integers(0, 14))
    melanin += 0.3 * pattern.dots(rng, shape, freckles, (1.0, 3.0), 1.2)
    flush = float(rng.uniform(0.16, 0.28) if dermoscopy else rng.uniform(0.1, 0.2))
    blood = np.float32(flush) * (1 + 0.16 * pattern.clouds(rng, shape, size / 3, 2)) + np.float32(0.03) * lines
    pores = pattern.cloud(rng, shape, 2.6)
    return Tissue(melanin, blood, 0.25 * pores - 0.7 * lines)


def _with_lesions(plane: Plane, drawn: tuple[Tissue, ...], windows: tuple[Window, ...], part: str) -> Plane:
    """The skin's plane with every lesion's part added in its window."""
    total = plane.copy()
    for lesion, window in zip(drawn, windows, strict=True):
        total[window.rows, window.columns] += getattr(lesion, part)
    return total


def _lit(rng: Rng, picture: Picture, height: Plane, view: View) -> Picture:
    angle = float(rng.uniform(0, math.tau))
    light = (math.cos(angle), math.sin(angle))
    strength = 0.03 if view is View.DERMOSCOPY else 0.09
    return picture * pigment.shading(height, light, strength)[..., None]


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _record(scene: Scene, name: str, digest: str, size: int) -> ImageRecord:
    patient = scene.patient
    return ImageRecord(
        image_id=digest,
        uri=f"images/{name}",
        size=ImageSize(size, size),
        original_name=name,
        patient_id=patient.patient_id,
        lesion_id=scene.lesions[0].lesion_id if len(scene.lesions) == 1 else None,
        age=patient.age,
        sex=patient.sex,
        site=scene.site,
        skin_type=patient.skin_type,
        source=_AUTHOR,
        device=scene.view.value,
        consent=True,
        synthetic=True,
    )


def _truth(scene: Scene, windows: tuple[Window, ...], record: ImageRecord) -> Annotation:
    marked = tuple(_marked(*pair, record.size) for pair in zip(scene.lesions, windows, strict=True))
    return Annotation(
        image_id=record.image_id,
        finding=Finding.LESIONS if marked else Finding.LESION_FREE,
        lesions=marked,
        level=TruthLevel.CONSENSUS,
        author=_AUTHOR,
    )


def _marked(lesion: LesionPlan, window: Window, size: ImageSize) -> Lesion:
    whole = np.zeros((size.height, size.width), dtype=bool)
    whole[window.rows, window.columns] = window.inside
    mask = RleMask.from_array(whole)
    box = mask.envelope()
    assert box is not None, "the plan keeps every lesion inside the picture"
    diagnosis = _TAXONOMY.resolve(lesion.diagnosis)
    return Lesion(box, diagnosis.code, diagnosis.severity.value, shape=mask, region_id=lesion.lesion_id)
