"""Freezes folders of published images, each with `metadata.csv`, into the versions that docs/results.md measures on.

`python -m benchmarks.real_images DATA HOME` reads `isic2018`, `ham10000` and `ham10000-crops` under DATA and prints a
line of JSON for each version. Nothing is downloaded. Supports annotation and research; no diagnosis.

- `lesions`: dermoscopy with masks, in three splits; a detector learns and is measured here.
- `elsewhere`: masked pictures of another hospital, all of them test; no model learns from them.
- `diagnoses`: one lesion a picture, seven diagnoses, in three splits; those of `lesions` join the training split.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from converters import taxonomy
from converters.dataset import Dataset, DatasetItem, DatasetVersion, Split, file_digest, freeze
from converters.formats.metadata_csv import WHOLE_IMAGE, read_rows
from converters.geometry import ImageSize, PixelBox
from converters.images import read_image
from converters.pixels import read_mask
from converters.splits import SplitPolicy, split

CENTRAL = 1 / 1.3
"""Side of the box in a picture of one central lesion: grown by the classifier's margins it is the whole picture."""

TABLE = "metadata.csv"


def main(data: Path, home: Path) -> None:
    """Freezes all three versions under a home."""
    lesions, elsewhere, central = (list(items(data / name)) for name in ("isic2018", "ham10000", "ham10000-crops"))
    sources = {item.record.image_id: Path(item.record.uri) for item in (*lesions, *elsewhere, *central)}
    outlined = [item for item in elsewhere if item.truth.lesions[0].shape is not None]
    taught = [replace(item, split=Split.TRAIN) for item in lesions]
    for name, chosen in (
        ("lesions", _split(lesions, SplitPolicy())),
        ("elsewhere", _split(outlined, SplitPolicy(0.0, 0.0, 1.0))),
        ("diagnoses", (*_split(central, SplitPolicy()), *taught)),
    ):
        version = freeze(Dataset(taxonomy.read(), tuple(chosen)), sources, home / "datasets", {"name": name})
        print(json.dumps({"version": name, "digest": version.digest, **counts(version)}), flush=True)


def items(folder: Path) -> Iterator[DatasetItem]:
    """The pictures of a folder that have a diagnosis, with mask or box as outline, else with a central box."""
    for row in read_rows(folder / TABLE).rows.values():
        path = folder / row.image
        size = ImageSize(*read_image(path).size)
        image_id = file_digest(path)
        mask = read_mask(folder / row.mask, row.mask) if row.mask else None
        truth = row.truth(image_id, size, mask)
        if truth is None or row.diagnosis is None:
            continue
        drawn = tuple(
            replace(lesion, box=central_box(size), attributes=()) if WHOLE_IMAGE in lesion.attributes else lesion
            for lesion in truth.lesions
        )
        record = row.record(image_id, str(path.resolve()), size, folder.name)
        yield DatasetItem(record, replace(truth, lesions=drawn))


def central_box(size: ImageSize) -> PixelBox:
    """The box of a lesion that is known to lie in the middle and no more."""
    x, y = size.width * CENTRAL / 2, size.height * CENTRAL / 2
    return PixelBox(size.width / 2 - x, size.height / 2 - y, size.width / 2 + x, size.height / 2 + y)


def counts(version: DatasetVersion) -> dict[str, dict[str, int]]:
    """Images of each diagnosis in each split."""
    table: dict[str, dict[str, int]] = {part.value: {} for part in Split}
    for item in version.dataset.items:
        if item.split is not None:
            row, code = table[item.split.value], str(item.truth.lesions[0].diagnosis)
            row[code] = row.get(code, 0) + 1
    return {name: dict(sorted(row.items())) for name, row in table.items()}


def _split(found: Sequence[DatasetItem], policy: SplitPolicy) -> tuple[DatasetItem, ...]:
    return split(Dataset(taxonomy.read(), tuple(found)), policy).items


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
