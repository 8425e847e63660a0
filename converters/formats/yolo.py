"""YOLO datasets (detect, segment, OBB, pose): `data.yaml`, `images/<split>/`, `labels/<split>/*.txt`.

Class numbers are read through the dataset's own names and written as taxonomy ids. An empty label file is a confirmed
lesion-free image; an image without label file has not been looked at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from converters.annotation import Annotation, Finding, ImageRecord
from converters.dataset import DatasetItem, Split
from converters.errors import AnnotationError, ConversionError, DatasetError
from converters.formats.contract import (
    Carries,
    Format,
    Picture,
    Piece,
    Placed,
    ReadResult,
    ReadSettings,
    Shapes,
    WriteSettings,
    piece,
)
from converters.formats.located import address_id, measured
from converters.formats.yolo_rows import Classes, Task, lesion_rows, parse_row
from converters.geometry import ImageSize
from converters.images import IMAGE_SUFFIXES
from converters.report import Entry, Kind, refused
from converters.taxonomy import Taxonomy

DATA = "data.yaml"


def write(items: Iterable[Placed], settings: WriteSettings, task: Task) -> Iterator[Piece | Picture]:
    """One label file for each item, the images beside them, and `data.yaml` with every class of the taxonomy.

    An image none of whose lesions can be written is left out: an empty file would call it lesion-free.
    """
    splits = set()
    for placed in items:
        size = placed.item.record.size
        lines = [
            row
            for lesion in placed.item.truth.lesions
            for row in lesion_rows(lesion, size, settings.taxonomy, task, settings.keypoints)
        ]
        if not lines and placed.item.truth.lesions:
            continue
        splits.add(placed.split)
        text = "\n".join(lines) + "\n" if lines else ""
        yield piece(f"labels/{placed.split}/{placed.stem}.txt", text.encode())
        if placed.image is not None:
            yield Picture(f"images/{placed.split}/{placed.name}", placed)
    yield Piece(DATA, _data(splits or {Split.TRAIN.value}, settings, task).encode())


def _data(splits: set[str], settings: WriteSettings, task: Task) -> str:
    data: dict[str, Any] = {"task": task.value}
    for split in Split:
        if split.value in splits:
            data[split.value] = f"images/{split.value}"
    data.setdefault("train", data.get("val", data.get("test")))
    data.setdefault("val", data["train"])
    if task is Task.POSE:
        data["kpt_shape"] = [len(settings.keypoints), 3]
        data["kpt_names"] = {diagnosis.id: list(settings.keypoints) for diagnosis in settings.taxonomy.diagnoses}
    data["names"] = dict(enumerate(settings.taxonomy.codes))
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def read(source: Path, settings: ReadSettings, task: Task) -> ReadResult:
    """One item for each labelled image of a dataset folder or its `data.yaml`."""
    path = source / DATA if source.is_dir() else source
    data = load_data(path)
    classes = _classes(data, settings.taxonomy, path)
    root = path.parent / str(data.get("path", "")) if data.get("path") else path.parent
    seen: set[Path] = set()
    for split in Split:
        for folder in _folders(data, split.value, root, path):
            if folder not in seen:
                seen.add(folder)
                named = Split(folder.name) if folder.name in tuple(Split) else split
                yield from _read_folder(folder, named, classes, settings, task)


def load_data(path: Path) -> Mapping[str, Any]:
    """The content of a `data.yaml`; raises DatasetError naming the file."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(str(path), str(error)[:200], "a readable data.yaml", "Name the dataset's folder.") from error
    if not isinstance(data, dict) or not isinstance(data.get("names"), dict | list):
        raise DatasetError(str(path), str(data)[:80], "a mapping with `names`", "Add the class names.")
    return data


def _classes(data: Mapping[str, Any], taxonomy: Taxonomy, path: Path) -> Classes:
    names = data["names"]
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DatasetError(f"{path}, names", list(names), "numbers 0, 1, 2, …", "Number the classes.")
        names = [names[number] for number in range(len(names))]
    diagnoses = tuple(taxonomy.resolve(str(name), f"{path}, class {number}") for number, name in enumerate(names))
    shape = data.get("kpt_shape") or [0, 3]
    if not (isinstance(shape, list) and len(shape) == 2 and isinstance(shape[0], int) and shape[1] in (2, 3)):
        raise DatasetError(f"{path}, kpt_shape", shape, "[number of points, 2 or 3]", "Correct kpt_shape.")
    named = data.get("kpt_names")
    first = next(iter(named.values()), None) if isinstance(named, dict) else None
    numbered = [f"point-{number}" for number in range(shape[0])]
    points: list[Any] = first if isinstance(first, list) and len(first) == shape[0] else numbered
    return Classes(diagnoses, tuple(map(str, points)), shape[1])


def _folders(data: Mapping[str, Any], split: str, root: Path, path: Path) -> Iterator[Path]:
    found = data.get(split)
    for entry in found if isinstance(found, list) else [found]:
        if entry is None:
            continue
        if not isinstance(entry, str) or entry.endswith(".txt"):
            raise DatasetError(f"{path}, {split}", entry, "a folder of images", "List folders, not files of paths.")
        folder = (root / entry).resolve()
        if not folder.is_dir() and not labels_beside(folder).is_dir():
            raise DatasetError(f"{path}, {split}", str(folder), "a folder of images or labels", "Restore the folder.")
        yield folder


def labels_beside(images: Path) -> Path:
    """The label folder that YOLO pairs with a folder of images: the last `images` of its path turned into `labels`."""
    parts = list(images.parts)
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] == "images":
            return Path(*parts[:index], "labels", *parts[index + 1 :])
    return images


def _read_folder(images: Path, split: Split, classes: Classes, settings: ReadSettings, task: Task) -> ReadResult:
    labels = labels_beside(images)
    pictures = dict(_stems(images, IMAGE_SUFFIXES))
    files = dict(_stems(labels, frozenset({".txt"})))
    for stem in sorted({*pictures, *files}):
        picture = images / f"{stem}{pictures[stem]}" if stem in pictures else None
        if stem not in files:
            yield Entry(Kind.SKIPPED, str(picture), "truth", stem, "no label file: nobody says it was looked at")
            continue
        path = labels / f"{stem}.txt"
        try:
            yield _read_item(path, picture, split, classes, settings, task)
        except ConversionError as error:
            yield refused(error, str(path))


def _stems(folder: Path, suffixes: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Relative path without suffix, and suffix, of the files below a folder; as text, for there may be many."""
    for parent, _, names in os.walk(folder):
        inner = os.path.relpath(parent, folder)
        for name in names:
            stem, suffix = os.path.splitext(name)  # noqa: PTH122
            if suffix.lower() in suffixes:
                yield (stem if inner == "." else f"{inner}/{stem}"), sys.intern(suffix)


def _read_item(
    path: Path, picture: Path | None, split: Split, classes: Classes, settings: ReadSettings, task: Task
) -> DatasetItem:
    image_id, size = _image(path, picture, settings)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(str(path), str(error), "a text file", "Export the labels again.") from error
    lesions = tuple(
        parse_row(line, size, classes, task, f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    )
    name = picture.name if picture else path.stem
    record = ImageRecord(image_id, str(picture or name), size, original_name=name)
    finding = Finding.LESIONS if lesions else Finding.LESION_FREE
    return DatasetItem(record, Annotation(image_id, finding, lesions, author="yolo"), split)


def _image(path: Path, picture: Path | None, settings: ReadSettings) -> tuple[str, ImageSize]:
    if picture is not None:
        return measured(picture, str(path))
    size = settings.sizes.get(path.stem)
    if size is None:
        raise AnnotationError(str(path), "no image", "the image, whose size turns shares into pixels", "Restore it.")
    return address_id(path.stem), size


def sniff(source: Path, task: Task) -> bool:
    """Whether a folder or `data.yaml` is a YOLO dataset of this task, by its own word or the shape of its rows."""
    path = source / DATA if source.is_dir() else source
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    try:
        data = load_data(path)
    except DatasetError:
        return False
    if data.get("task") in tuple(Task):
        return bool(data["task"] == task)
    if "kpt_shape" in data:
        return task is Task.POSE
    lengths = _row_lengths(path.parent)
    guess = {5: Task.DETECT, 9: Task.OBB}.get(min(lengths, default=5), Task.SEGMENT)
    return task is (guess if len(lengths) < 2 else Task.SEGMENT)


def _row_lengths(root: Path) -> set[int]:
    """Numbers per row in the first hundred label files."""
    lengths = set()
    for _, path in zip(range(100), sorted(root.glob("labels/**/*.txt")), strict=False):
        lengths |= {len(line.split()) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()}
    return lengths - {0}


def _format(task: Task, name: str, summary: str, carries: Carries) -> Format:
    return Format(
        name, summary, partial(sniff, task=task), partial(read, task=task), partial(write, task=task), carries
    )


YOLO_FORMATS = (
    _format(Task.DETECT, "yolo", "ultralytics detection: one box per lesion", Carries(Shapes.BOX)),
    _format(Task.SEGMENT, "yolo-segment", "ultralytics segmentation: outlines, holes by a cut", Carries(Shapes.PIXELS)),
    _format(Task.OBB, "yolo-obb", "ultralytics turned boxes", Carries(Shapes.ROTATED)),
    _format(Task.POSE, "yolo-pose", "ultralytics poses: a box and named points", Carries(Shapes.BOX, keypoints=True)),
)
