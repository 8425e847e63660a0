"""A frozen dataset version as each trainer wants it: a YOLO folder for the detector, lesion crops for the classifier.

Pixels go through the serving code (`ml_backend.preprocessing`), so a model learns on exactly what it will be shown.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.annotation import Finding, Lesion
from converters.dataset import DatasetItem, DatasetVersion, Split
from converters.formats.yolo_rows import ring
from converters.geometry import PixelBox
from converters.taxonomy import Severity, Target, Taxonomy
from converters.whole import whole_file, whole_folder
from ml_backend import images, preprocessing
from ml_backend.bundle import ModelBundle
from ml_backend.images import DecodedImage, DecodeLimits
from ml_backend.pipeline import Pipeline
from ml_backend.preprocessing import Floats, Letterbox, Pixels
from training import agreement
from training.errors import DataError

DATA_FILE = "data.yaml"
WEIGHTS = "weights"
_FOUND_FROM, _PICTURES_AT_ONCE = 0.5, 32
Labels = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class YoloFolder:
    """A YOLO dataset on disk with one class, `lesion`: letterboxed squares of the detector's input size."""

    data_file: Path
    images: int
    lesions: int
    background: int
    skipped: int


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Lesion crops: RGB pixels (N, S, S, 3), class indices (N,), and the image each was cut from.

    `shares` (N, C) are the readers behind each class, all on the label where nobody differed. `found` are the same
    lesions cut where a detector drew them, where that was asked for.
    """

    pixels: Pixels
    labels: Labels
    image_ids: tuple[str, ...]
    shares: Floats
    unlabelled: int = 0
    sources: tuple[str, ...] = ()
    found: Pixels | None = None


def gradable(items: Iterable[DatasetItem]) -> Iterator[DatasetItem]:
    """Items with an answer to learn from: marked lesions or confirmed lesion-free; the other findings say nothing."""
    return (item for item in items if item.truth.finding in (Finding.LESIONS, Finding.LESION_FREE))


def read_decoded(version: DatasetVersion, item: DatasetItem, bundle: ModelBundle | None = None) -> DecodedImage:
    """The picture of an item as serving decodes it, with this bundle or with one that reads crops.

    Raises DataError where the frozen file is gone or changed.
    """
    path = version.path(item)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(str(path), str(error), "the frozen image", "Restore it or freeze again.") from error
    if (found := hashlib.sha256(content).hexdigest()) != item.stored_digest:
        raise DataError(str(path), found, f"digest {item.stored_digest}", "Restore it or freeze again.")
    limits = DecodeLimits(working_side=bundle.working_side) if bundle else images.DEFAULT_LIMITS
    return images.decode(content, str(path), limits)


def yolo_folder(
    version: DatasetVersion, cache: Path, image_size: int, *, outlines: bool = False, agreement_weight: float = 0.0
) -> YoloFolder:
    """The version's training and validation splits as a YOLO folder, made once under `cache`.

    With `outlines` labels are polygons instead of boxes. `weights/` has the weight of each training lesion in the loss,
    line by line as the labels (see `agreement.loss_weight`), for images whose readers differed.
    Confirmed lesion-free images are background; ungradable ones and those nobody looked at are left out. Raises
    DataError where either split has no lesion.
    """
    chosen = {part: tuple(gradable(version.dataset.only(part))) for part in (Split.TRAIN, Split.VAL)}
    for part, items in chosen.items():
        if not any(item.truth.lesions for item in items):
            raise DataError(f"{part.value} split of {version.digest[:12]}", "no lesion", "one or more", _MORE)
    kind = f"{'-outlines' if outlines else ''}{f'-{agreement_weight:g}' if agreement_weight else ''}"
    target = cache / f"yolo-{version.digest[:16]}-{image_size}{kind}"
    if not (target / DATA_FILE).is_file():
        labels = _Labels(image_size, outlines, agreement_weight)
        with whole_folder(target, DATA_FILE) as draft:
            _write_yolo(version, chosen, draft, labels)
    used = [item for part in chosen.values() for item in part]
    counts = Counter(item.truth.finding for item in used)
    skipped = sum(1 for item in version.dataset.items if item.split is not Split.TEST) - len(used)
    lesions = sum(len(item.truth.lesions) for item in used)
    return YoloFolder(target / DATA_FILE, len(used), lesions, counts[Finding.LESION_FREE], skipped)


def crops(
    version: DatasetVersion,
    split: Split,
    target: Target,
    *,
    size: int,
    padding: float,
    cache: Path,
    finder: ModelBundle | None = None,
) -> Crops:
    """The crops of all lesions of a split whose class is known, cut by the serving code, made once under `cache`.

    They are cut at the true boxes, or at those of a `finder`'s detector where it found the lesion; another bundle with
    the same detector finds the same.
    """
    where = _detector_key(finder) if finder else ""
    key = hashlib.sha256(f"3|{version.digest}|{split}|{target}|{size}|{padding:.6f}{where}".encode()).hexdigest()[:16]
    path = cache / f"crops-{key}.npz"
    if not path.is_file():
        _store(path, _cut(version, split, target, size, padding, finder))
    with np.load(path, allow_pickle=False) as found:
        image_ids = tuple(str(name) for name in found["image_ids"])
        sources = tuple(str(name) for name in found["sources"])
        left = int(found["unlabelled"])
        return Crops(found["pixels"], found["labels"], image_ids, found["shares"], left, sources)


def class_index(lesion: Lesion, target: Target, taxonomy: Taxonomy) -> int | None:
    """Class index of a lesion's truth for a target, or None where the truth does not say.

    A lesion of known severity but open diagnosis still teaches severity; an open low severity is benign, a higher one
    malignant, as the taxonomy has it.
    """
    if lesion.diagnosis is not None:
        return taxonomy.class_index(taxonomy.resolve(lesion.diagnosis), target)
    if lesion.severity is None or target is Target.DIAGNOSIS:
        return None
    severity = Severity(lesion.severity)
    if target is Target.SEVERITY:
        return severity.rank
    sides = {d.malignant for d in taxonomy.diagnoses if d.severity is severity}
    return int(sides.pop()) if len(sides) == 1 else None


def found_boxes(version: DatasetVersion, split: Split, bundle: ModelBundle) -> Mapping[str, tuple[PixelBox, ...]]:
    """For each gradable image the box of each true lesion as the bundle's detector draws it; its own where missed.

    A detection counts from an overlap (IoU) of a half; of several the one with the most.
    """
    items = [item for item in gradable(version.dataset.only(split)) if item.truth.lesions]
    pipeline = Pipeline.open(replace(bundle, classifier=None))
    found: dict[str, tuple[PixelBox, ...]] = {}
    for start in range(0, len(items), _PICTURES_AT_ONCE):
        part = items[start : start + _PICTURES_AT_ONCE]
        answers = pipeline.predict([read_decoded(version, item, bundle) for item in part])
        for item, answer in zip(part, answers, strict=True):
            found[item.record.image_id] = _matched(item, [lesion.box for lesion in answer.lesions])
    return found


def _matched(item: DatasetItem, drawn: list[PixelBox]) -> tuple[PixelBox, ...]:
    def nearest(lesion: Lesion) -> PixelBox:
        best = max(drawn, key=lesion.box.iou, default=lesion.box)
        return best if lesion.box.iou(best) >= _FOUND_FROM else lesion.box

    return tuple(nearest(lesion) for lesion in item.truth.lesions)


_AROUND = np.arange(24) * (2 * np.pi / 24)
_COSINE, _SINE = np.cos(_AROUND), np.sin(_AROUND)
_MORE = "Approve more images, or change the split shares."


def _cut(
    version: DatasetVersion, split: Split, target: Target, size: int, padding: float, finder: ModelBundle | None
) -> Crops:
    known, found = version.dataset.taxonomy, found_boxes(version, split, finder) if finder else {}
    pixels, labels, image_ids, shares, sources, unlabelled = [], [], [], [], [], 0
    for item in gradable(version.dataset.only(split)):
        indices = [class_index(lesion, target, known) for lesion in item.truth.lesions]
        unlabelled += indices.count(None)
        if all(index is None for index in indices):
            continue
        image = read_decoded(version, item)
        boxes = found.get(item.record.image_id) or tuple(lesion.box for lesion in item.truth.lesions)
        for lesion, box, index in zip(item.truth.lesions, boxes, indices, strict=True):
            if index is not None:
                pixels.append(preprocessing.crop_lesion(image.pixels, image.to_pixels(box), padding, size))
                labels.append(index)
                shares.append(agreement.target_shares(lesion, index, target, known))
                image_ids.append(item.record.image_id)
                sources.append(item.record.source or "")
    stacked = np.stack(pixels) if pixels else np.zeros((0, size, size, 3), dtype=np.uint8)
    columns = np.array(shares, dtype=np.float32).reshape(len(labels), len(known.classes(target)))
    return Crops(stacked, np.array(labels, dtype=np.intp), tuple(image_ids), columns, unlabelled, tuple(sources))


def _detector_key(finder: ModelBundle) -> str:
    """What decides where a bundle's detector finds lesions: its graph, its spec, and the scale of its pictures."""
    graph = hashlib.sha256(finder.detector_path.read_bytes()).hexdigest() if finder.detector else ""
    return f"{graph}|{finder.detector}|{finder.working_side}"


def _store(path: Path, found: Crops) -> None:
    names, sources = (np.array(words, dtype=np.str_) for words in (found.image_ids, found.sources))
    left = np.array(found.unlabelled)
    with whole_file(path) as draft:
        np.savez(
            draft,
            pixels=found.pixels,
            labels=found.labels,
            shares=found.shares,
            image_ids=names,
            sources=sources,
            unlabelled=left,
        )


@dataclass(frozen=True, slots=True)
class _Labels:
    """How the lesions of a YOLO folder are written down."""

    size: int
    outlines: bool
    agreement_weight: float

    def rows(self, item: DatasetItem, image: DecodedImage, place: Letterbox) -> str:
        """The label file of one image."""
        rows = []
        for lesion in item.truth.lesions:
            points = self._outline(lesion, image, place) if self.outlines else self._box(lesion, image, place)
            rows.append(f"0 {' '.join(f'{value:.6f}' for value in points)}\n")
        return "".join(rows)

    def weights(self, item: DatasetItem) -> str:
        """The weight of each lesion of a training image, a line each; empty where all of them count in full."""
        found = [agreement.loss_weight(lesion, self.agreement_weight) for lesion in item.truth.lesions]
        return "".join(f"{weight:.6f}\n" for weight in found) if min(found, default=1.0) < 1 else ""

    def _box(self, lesion: Lesion, image: DecodedImage, place: Letterbox) -> Sequence[float]:
        x0, y0, x1, y1 = self._edges(lesion, image, place)
        return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0

    def _outline(self, lesion: Lesion, image: DecodedImage, place: Letterbox) -> Sequence[float]:
        """The lesion's outline, or the ellipse in its box where it has none: a turned ellipse's box is tight."""
        outlined = lesion.shape is not None and not isinstance(lesion.shape, PixelBox)
        points = np.array(ring(lesion, image.size) if outlined else (), dtype=np.float32).reshape(-1, 2)
        if len(points) < 3:
            x0, y0, x1, y1 = self._edges(lesion, image, place)
            around = np.stack([(x0 + x1 + (x1 - x0) * _COSINE) / 2, (y0 + y1 + (y1 - y0) * _SINE) / 2], axis=1)
            return [float(value) for value in around.ravel()]
        height, width = image.pixels.shape[:2]
        points *= np.array([width / image.size.width, height / image.size.height], dtype=np.float32)
        return [float(value) for value in self._shares(place.to_square(np.tile(points, 2))[:, :2]).ravel()]

    def _edges(self, lesion: Lesion, image: DecodedImage, place: Letterbox) -> Sequence[float]:
        box = image.to_pixels(lesion.box)
        edges = np.array([[box.x_min, box.y_min, box.x_max, box.y_max]], dtype=np.float32)
        return [float(value) for value in self._shares(place.to_square(edges))[0]]

    def _shares(self, values: Floats) -> Floats:
        return np.asarray(np.clip(values / self.size, 0, 1), dtype=np.float32)


def _write_yolo(
    version: DatasetVersion, chosen: dict[Split, tuple[DatasetItem, ...]], folder: Path, labels: _Labels
) -> None:
    (folder / WEIGHTS).mkdir()
    for part, items in chosen.items():
        (folder / "images" / part.value).mkdir(parents=True)
        (folder / "labels" / part.value).mkdir(parents=True)
        for item in items:
            image = read_decoded(version, item)
            square, place = preprocessing.letterbox(image.pixels, labels.size)
            name = item.record.image_id[:24]
            Image.fromarray(square).save(folder / "images" / part.value / f"{name}.png", compress_level=1)
            text = labels.rows(item, image, place)
            (folder / "labels" / part.value / f"{name}.txt").write_text(text, encoding="ascii")
            if part is Split.TRAIN and (weights := labels.weights(item)):
                (folder / WEIGHTS / f"{name}.txt").write_text(weights, encoding="ascii")
    data = "train: images/train\nval: images/val\nnames:\n  0: lesion\n"
    (folder / DATA_FILE).write_text(data, encoding="utf-8")
