"""A folder of synthetic pictures as any published data set would come: images, masks and a metadata table."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from converters.annotation import Lesion
from converters.geometry import RleMask
from converters.whole import whole_file
from dermloop.demo.picture import DemoImage, render
from dermloop.demo.scene import DemoOptions

METADATA = "metadata.csv"
COLUMNS = (
    "image", "mask", "dx", "dx_source", "confirm_type", "age", "sex", "localization", "skin_type", "lesion_id",
    "patient_id", "bbox_x", "bbox_y", "bbox_w", "bbox_h", "mask_components", "width", "height", "geometry", "note",
    "finding", "synthetic",
)  # fmt: skip


def write_demo(
    folder: Path,
    count: int,
    seed: int = 1,
    options: DemoOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The metadata file of `count` pictures written to `folder`; one row a lesion, the picture's name repeated.

    A lesion-free picture has one row without box. `progress` is told how many of how many are done. The file appears
    last, so that a folder that holds it is complete.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    rows: list[dict[str, str]] = []
    for index in range(count):
        rows += _write_picture(folder, render(seed, index, options))
        if progress:
            progress(index + 1, count)
    with whole_file(folder / METADATA) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return folder / METADATA


def _write_picture(folder: Path, picture: DemoImage) -> Iterator[dict[str, str]]:
    (folder / picture.record.uri).write_bytes(picture.content)
    shared = _shared_cells(picture)
    if not picture.truth.lesions:
        yield shared
    for number, lesion in enumerate(picture.truth.lesions):
        mask = f"masks/{Path(picture.name).stem}-{number}.png"
        _write_mask(folder / mask, lesion)
        yield {**shared, "mask": mask, "lesion_id": picture.lesion_ids[number], **_lesion_cells(lesion)}


def _shared_cells(picture: DemoImage) -> dict[str, str]:
    record = picture.record
    return {
        "image": record.uri,
        "age": f"{record.age:g}",
        "sex": str(record.sex),
        "localization": str(record.site),
        "skin_type": str(record.skin_type),
        "patient_id": str(record.patient_id),
        "width": str(record.size.width),
        "height": str(record.size.height),
        "geometry": "synthetic drawing",
        "note": str(record.device),
        "finding": picture.truth.finding.value,
        "synthetic": "true",
    }


def _lesion_cells(lesion: Lesion) -> dict[str, str]:
    box = lesion.box
    return {
        "dx": str(lesion.diagnosis),
        "dx_source": "synthetic",
        "bbox_x": f"{box.x_min:g}",
        "bbox_y": f"{box.y_min:g}",
        "bbox_w": f"{box.width:g}",
        "bbox_h": f"{box.height:g}",
        "mask_components": "1",
    }


def _write_mask(path: Path, lesion: Lesion) -> None:
    assert isinstance(lesion.shape, RleMask), "synthetic lesions carry their mask"
    Image.fromarray(lesion.shape.to_array().astype(np.uint8) * 255).convert("1").save(path, "PNG")
