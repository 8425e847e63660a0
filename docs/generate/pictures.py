"""`make docs-images`: screenshots of the browser tests, all of synthetic images, become the tutorials' pictures."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
SHOTS, PICTURES = ROOT / "tests" / "output", ROOT / "docs" / "images"
_WIDTH, _TALLEST, _COLOURS = 1200, 1300, 128

SOURCES = {
    "annotator-queue.png": "1-technician-queue.png",
    "annotator-task.png": "2-technician-task.png",
    "dermatologist.png": "3-dermatologist-1.png",
    "qa-task.png": "4-qa-task.png",
    "qa-disputed.png": "review-disputed.png",
    "engineer-page.png": "page-heat.png",
    "engineer-overview.png": "review-phone-overview.png",
    "engineer-training.png": "review-phone-training.png",
}
"""Which screenshot each picture of the documentation is."""


def main() -> int:
    """The number of screenshots that are missing; the others are scaled and written with few colours."""
    missing = [name for name in SOURCES.values() if not (SHOTS / name).is_file()]
    for picture, shot in SOURCES.items():
        if shot not in missing:
            _write(SHOTS / shot, PICTURES / picture)
    for name in missing:
        print(f"{SHOTS / name}: no such screenshot. Run the browser tests: make docs-images", file=sys.stderr)
    return len(missing)


def _write(source: Path, target: Path) -> None:
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    if picture.width > _WIDTH:
        picture = picture.resize((_WIDTH, round(picture.height * _WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture = picture.crop((0, 0, picture.width, min(picture.height, _TALLEST)))
    few = picture.quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
    few.save(target, "PNG", optimize=True)


if __name__ == "__main__":
    sys.exit(main())
