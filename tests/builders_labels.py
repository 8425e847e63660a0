"""Ready-made images, lesions and annotations; a test varies the one thing it is about."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image

from converters.annotation import Annotation, Finding, ImageRecord, Lesion, TruthLevel
from converters.geometry import ImageSize, PixelBox

SIZE = ImageSize(100, 80)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def box(x: float = 10, y: float = 10, width: float = 30, height: float = 20) -> PixelBox:
    return PixelBox(x, y, x + width, y + height)


def lesion(diagnosis: str | None = "nv", at: PixelBox | None = None, severity: str | None = "low") -> Lesion:
    return Lesion(at or box(), diagnosis, severity)


def annotation(
    image_id: str = "image-1",
    lesions: tuple[Lesion, ...] | None = None,
    level: TruthLevel = TruthLevel.QA,
    author: str = "qa@example.org",
    minutes: int = 0,
    finding: Finding | None = None,
) -> Annotation:
    found = (lesion(),) if lesions is None else lesions
    return Annotation(
        image_id=image_id,
        finding=finding or (Finding.LESIONS if found else Finding.LESION_FREE),
        lesions=found,
        level=level,
        author=author,
        annotation_id=f"{author}-{minutes}",
        created_at=NOON + timedelta(minutes=minutes),
    )


def stored_image(folder: Path, number: int, **facts: object) -> ImageRecord:
    """A small distinct PNG below `folder/images`, and its record."""
    buffer = io.BytesIO()
    Image.new("RGB", (SIZE.width, SIZE.height), (number % 256, number // 256, 90)).save(buffer, "PNG")
    image_id = hashlib.sha256(buffer.getvalue()).hexdigest()
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "images" / f"{image_id}.png").write_bytes(buffer.getvalue())
    return ImageRecord(image_id, f"images/{image_id}.png", SIZE, original_name=f"{number}.png", **facts)  # type: ignore[arg-type]
