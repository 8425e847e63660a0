"""SageMaker Ground Truth augmented manifests: a JSON object on each line, with labels and their metadata block.

Source: the AWS developer guide, "Labeling job output data", for object detection, image classification and semantic
segmentation. Class numbers are read through each line's own class map and written as taxonomy ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from converters import images
from converters.annotation import Annotation, Finding, ImageRecord, Lesion, TruthLevel
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
)
from converters.formats.located import address_id, measured, require_size
from converters.formats.masks import class_map, index_png, masked, palette
from converters.formats.metadata_csv import WHOLE_IMAGE
from converters.geometry import ImageSize, PixelBox, RleMask
from converters.label_studio.addresses import ImageFolder, parse_address
from converters.report import refused
from converters.taxonomy import Diagnosis, Taxonomy

_EPOCH = "1970-01-01T00:00:00.000000"
_BOXES, _CLASS, _SEGMENTS = "bounding-box", "class", "segmentation-ref"
Line = dict[str, Any]

Label = Callable[[Placed, WriteSettings], tuple[Line, list[Piece]]]
Decode = Callable[[Line, str, "_Lines"], tuple[tuple[Lesion, ...], ImageSize | None]]


class _Lines:
    """Where a manifest lies, under which classes it is read, and where its images are."""

    def __init__(self, path: Path, settings: ReadSettings) -> None:
        self.path = path
        self.settings = settings
        root = path.parent
        folder = settings.images or (root / "images" if (root / "images").is_dir() else None)
        self.images = ImageFolder.scan(folder) if folder else None


def write(items: Iterable[Placed], settings: WriteSettings, label: Label) -> Iterator[Piece | Picture]:
    """A manifest for each split and the images beside them."""
    for placed in items:
        labels, pieces = label(placed, settings)
        if not labels:
            continue
        line = {"source-ref": f"{settings.prefix}images/{placed.name}", **labels}
        yield from pieces
        yield Piece(f"{placed.split}.manifest", orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        if placed.image is not None:
            yield Picture(f"images/{placed.name}", placed)


def _boxes(placed: Placed, settings: WriteSettings) -> tuple[Line, list[Piece]]:
    size = placed.item.record.size
    rows, scores, classes = [], [], {}
    for lesion in placed.item.truth.lesions:
        box = lesion.box.clipped(size)
        if lesion.diagnosis is None or box.area <= 0:
            continue
        number = settings.taxonomy.resolve(lesion.diagnosis).id
        classes[str(number)] = lesion.diagnosis
        rows.append({"class_id": number, "left": box.x_min, "top": box.y_min, "width": box.width, "height": box.height})
        scores.append({"confidence": 1.0 if lesion.score is None else lesion.score})
    if placed.item.truth.lesions and not rows:
        return {}, []
    found = {"image_size": [{"width": size.width, "height": size.height, "depth": 3}], "annotations": rows}
    block = {"objects": scores, "class-map": classes, **_block(placed, settings, "object-detection")}
    return {_BOXES: found, f"{_BOXES}-metadata": block}, []


def _class(placed: Placed, settings: WriteSettings) -> tuple[Line, list[Piece]]:
    codes = sorted({lesion.diagnosis for lesion in placed.item.truth.lesions if lesion.diagnosis})
    if len(codes) != 1:
        return {}, []
    found = settings.taxonomy.resolve(codes[0])
    score = placed.item.truth.lesions[0].score
    block = {"class-name": found.code, "confidence": 1.0 if score is None else score}
    size = placed.item.record.size
    return {
        _CLASS: found.id,
        f"{_CLASS}-metadata": {**block, **_block(placed, settings, "image-classification")},
        "image-size": {"width": size.width, "height": size.height},
    }, []


def _segments(placed: Placed, settings: WriteSettings) -> tuple[Line, list[Piece]]:
    found = class_map(placed.item, settings.taxonomy)
    if placed.item.truth.lesions and not found.any():
        return {}, []
    path = f"masks/{placed.stem}.png"
    colours = palette(settings.taxonomy)
    names = ("BACKGROUND", *settings.taxonomy.codes)
    colour_map = {
        str(number): {"class-name": name, "hex-color": "#{:02x}{:02x}{:02x}".format(*colour), "confidence": 1.0}
        for number, (name, colour) in enumerate(zip(names, colours, strict=True))
    }
    block = {"internal-color-map": colour_map, **_block(placed, settings, "semantic-segmentation")}
    picture = index_png(found, settings.taxonomy)
    return {_SEGMENTS: f"{settings.prefix}{path}", f"{_SEGMENTS}-metadata": block}, [Piece(path, picture)]


def _block(placed: Placed, settings: WriteSettings, kind: str) -> Line:
    said = placed.item.truth
    return {
        "type": f"groundtruth/{kind}",
        "human-annotated": "no" if said.level is TruthLevel.MODEL else "yes",
        "creation-date": said.created_at.isoformat() if said.created_at else _EPOCH,
        "job-name": settings.job,
    }


def read(source: Path, settings: ReadSettings, kind: str) -> ReadResult:
    """One item for each line of a manifest, or of every manifest of a folder (its name tells the split)."""
    for path in _manifests(source):
        split = Split(path.stem) if path.stem in tuple(Split) else None
        lines = _Lines(path, settings)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DatasetError(str(path), str(error), "a readable manifest", "Check the path.") from error
        for number, text in enumerate(content.split(b"\n"), 1):
            if text.strip():
                yield _line(text, f"{path}, line {number}", split, lines, kind)


def _manifests(source: Path) -> list[Path]:
    found = [source] if source.is_file() else sorted(source.glob("*.manifest"))
    if not found:
        raise DatasetError(str(source), "no manifest", "*.manifest", "Name the manifest itself.")
    return found


def _line(text: bytes, item: str, split: Split | None, lines: _Lines, kind: str) -> Any:
    try:
        line = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return refused(AnnotationError(item, text[:80], f"a JSON object ({error})", "Restore the line."))
    try:
        return _item(line, item, split, lines, kind)
    except ConversionError as error:
        return refused(error, item)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        expected = f"a complete {kind} line ({type(error).__name__} {error})"
        return refused(AnnotationError(item, text[:80], expected, "Restore the line."))


def _item(line: Line, item: str, split: Split | None, lines: _Lines, kind: str) -> DatasetItem:
    address = line["source-ref"]
    name = parse_address(address, item)
    lesions, size = _KINDS[kind](line, item, lines)
    image_id, uri = address_id(address), address
    if lines.images is not None:
        path = lines.images.find(name, item)
        image_id, found = measured(path, item)
        require_size(path, found, size, item)
        uri, size = str(path), found
    if size is None:
        raise AnnotationError(item, "no size", "the image, or its size", "Name the images with --images.")
    record = ImageRecord(image_id, uri, size, original_name=name.name)
    whole = PixelBox(0, 0, size.width, size.height)
    drawn = tuple(
        Lesion(whole, found.diagnosis, found.severity, found.score, attributes=(WHOLE_IMAGE,))
        if found.attributes == (WHOLE_IMAGE,)
        else found
        for found in lesions
    )
    finding = Finding.LESIONS if drawn else Finding.LESION_FREE
    return DatasetItem(record, Annotation(image_id, finding, drawn, author="ground-truth"), split)


def _read_boxes(line: Line, item: str, lines: _Lines) -> tuple[tuple[Lesion, ...], ImageSize | None]:
    key, block = _label(line, "groundtruth/object-detection", item)
    found = line[key]
    size = ImageSize(int(found["image_size"][0]["width"]), int(found["image_size"][0]["height"]))
    scores = block.get("objects") or [{}] * len(found["annotations"])
    if len(scores) != len(found["annotations"]):
        raise AnnotationError(f"{item}, objects", len(scores), f"{len(found['annotations'])} scores", "Restore it.")
    lesions = []
    for number, (row, score) in enumerate(zip(found["annotations"], scores, strict=True), 1):
        place = f"{item}, annotation {number}"
        diagnosis = _diagnosis(block["class-map"], row["class_id"], lines.settings.taxonomy, place)
        left, top, width, height = (float(row[side]) for side in ("left", "top", "width", "height"))
        box = PixelBox(left, top, left + width, top + height)
        inside = box.clipped(size)
        if inside.area <= 0 or max(box.width - inside.width, box.height - inside.height) > 1:
            raise AnnotationError(place, box, f"a box inside {size.width}×{size.height}", "Correct the box.")
        confidence = score.get("confidence")
        given = None if confidence in (None, 0, 1) and block.get("human-annotated") != "no" else confidence
        lesions.append(Lesion(inside, diagnosis.code, diagnosis.severity.value, given))
    return tuple(lesions), size


def _read_class(line: Line, item: str, lines: _Lines) -> tuple[tuple[Lesion, ...], ImageSize | None]:
    _, block = _label(line, "groundtruth/image-classification", item)
    found = lines.settings.taxonomy.resolve(str(block["class-name"]), item)
    stated = line.get("image-size")
    size = ImageSize(int(stated["width"]), int(stated["height"])) if stated else None
    lesion = Lesion(PixelBox(0, 0, 1, 1), found.code, found.severity.value, attributes=(WHOLE_IMAGE,))
    return (lesion,), size


def _read_segments(line: Line, item: str, lines: _Lines) -> tuple[tuple[Lesion, ...], ImageSize | None]:
    key, block = _label(line, "groundtruth/semantic-segmentation", item)
    path = lines.path.parent / parse_address(line[key], item).path
    path = path if path.is_file() else lines.path.parent / "masks" / parse_address(line[key], item).name
    image = images.read_image(path)
    pixels = np.asarray(image)
    left = np.ones(pixels.shape[:2], dtype=bool)
    lesions = []
    for number, row in block["internal-color-map"].items():
        mask = _of_colour(pixels, row["hex-color"]) & left
        left &= ~mask
        if row["class-name"] == "BACKGROUND" or not mask.any():
            continue
        code = lines.settings.taxonomy.resolve(str(row["class-name"]), f"{item}, colour {number}").code
        lesions.append(masked(RleMask.from_array(mask), code, lines.settings.taxonomy))
    if left.any():
        raise AnnotationError(item, f"{int(left.sum())} pixels", "colours of the colour map only", "Export it again.")
    return tuple(lesions), ImageSize(*image.size)


def _of_colour(pixels: NDArray[np.uint8], colour: str) -> NDArray[np.bool_]:
    wanted = np.array([int(colour.lstrip("#")[at : at + 2], 16) for at in (0, 2, 4)], dtype=np.uint8)
    return np.asarray((pixels == wanted).all(axis=2))


def _label(line: Line, kind: str, item: str) -> tuple[str, Line]:
    """The name of the label attribute of this kind, and its metadata block."""
    for key, block in line.items():
        if isinstance(block, dict) and block.get("type") == kind and key.endswith("-metadata"):
            return key.removesuffix("-metadata"), block
    raise AnnotationError(item, ", ".join(line)[:80], f"a label with a metadata block of type {kind}", "Restore it.")


def _diagnosis(class_map: Mapping[str, str], number: object, taxonomy: Taxonomy, item: str) -> Diagnosis:
    name = class_map.get(str(number))
    if name is None:
        raise AnnotationError(f"{item}, class_id", number, f"one of {', '.join(class_map)}", "Restore the class map.")
    return taxonomy.resolve(str(name), item)


_KINDS: Mapping[str, Decode] = {"boxes": _read_boxes, "classes": _read_class, "segmentation": _read_segments}
_TYPES = {"boxes": b"object-detection", "classes": b"image-classification", "segmentation": b"semantic-segmentation"}


def sniff(source: Path, kind: str) -> bool:
    """Whether a file or folder holds manifests of this kind."""
    try:
        path = _manifests(source)[0]
        with path.open("rb") as stream:
            head = stream.readline(1 << 20)
    except (DatasetError, OSError):
        return False
    return b"source-ref" in head and b"groundtruth/" + _TYPES[kind] in head


def _format(kind: str, summary: str, label: Label, carries: Carries) -> Format:
    reader, writer = partial(read, kind=kind), partial(write, label=label)
    return Format(f"ground-truth-{kind}", summary, partial(sniff, kind=kind), reader, writer, carries)


_WHOLE = Carries(Shapes.NONE, background=False, instances=False, whole_image=True)
_PIXELS = Carries(Shapes.PIXELS, boxes_as_pixels=True, instances=False)
GROUND_TRUTH_FORMATS = (
    _format("boxes", "SageMaker Ground Truth manifest: object detection", _boxes, Carries(Shapes.BOX)),
    _format("classes", "SageMaker Ground Truth manifest: image classification", _class, _WHOLE),
    _format("segmentation", "SageMaker Ground Truth manifest: semantic segmentation", _segments, _PIXELS),
)
