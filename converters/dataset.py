"""Datasets: images with their one truth and their split, and frozen versions of them named by content."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from converters import manifest, pixels, taxonomy
from converters.annotation import Annotation, ImageRecord, Shape
from converters.errors import DatasetError
from converters.taxonomy import Taxonomy
from converters.whole import whole_folder

MANIFEST = "manifest.jsonl"
VERSION = "version.json"
_FORMAT = 1
_REDACTED = "redacted_sha256"


class Split(StrEnum):
    """Part of a dataset: learnt from, chosen by, or locked away for the final measurement."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class DatasetItem:
    """One image, its truth and its split (None before splitting); `provenance` says where the label came from."""

    record: ImageRecord
    truth: Annotation
    split: Split | None = None
    provenance: tuple[tuple[str, str], ...] = ()

    @property
    def stored_digest(self) -> str:
        """SHA-256 of the frozen file: the image's id, or, where regions were burned out of it, that of what is left."""
        return dict(self.provenance).get(_REDACTED, self.record.image_id)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images with their truth under one taxonomy, in memory; nothing here knows of any file format."""

    taxonomy: Taxonomy
    items: tuple[DatasetItem, ...] = ()

    def only(self, split: Split) -> tuple[DatasetItem, ...]:
        """The items of one split."""
        return tuple(item for item in self.items if item.split is split)


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A frozen dataset on disk: its folder, its digest, its content, and what it was frozen under."""

    root: Path
    digest: str
    dataset: Dataset
    settings: Mapping[str, Any] = field(default_factory=dict)

    def path(self, item: DatasetItem) -> Path:
        """Where the image of an item lies."""
        return self.root / item.record.uri

    def split_digest(self, split: Split) -> str:
        """SHA-256 over images and truths of one split, in hexadecimal; equal digests mean comparable measurements."""
        lines = sorted(encode_item(item) for item in self.dataset.only(split))
        return hashlib.sha256(b"".join(lines)).hexdigest()

    def verify(self) -> None:
        """Raises DatasetError naming the first image that is missing or whose bytes changed since the freeze."""
        for item in self.dataset.items:
            path = self.path(item)
            if not path.is_file():
                raise DatasetError(str(path), "no file", "the frozen image", "Restore it or freeze again.")
            if (found := file_digest(path)) != item.stored_digest:
                raise DatasetError(str(path), found, f"digest {item.stored_digest}", "Restore it or freeze again.")


def freeze(
    dataset: Dataset, sources: Mapping[str, Path], datasets: Path, settings: Mapping[str, Any]
) -> DatasetVersion:
    """The immutable version of a dataset under `datasets/<digest>`; the same content gives the same folder.

    `sources` maps image ids to files. Regions to be redacted are burned out of the frozen copy, whose own digest stands
    in the item's provenance; the item no longer names them. The folder appears whole or not at all. Raises DatasetError
    for an item without split, without source, whose bytes do not match its id, or that occurs twice.
    """
    _require_unique(dataset)
    stored = tuple(_stored(item, sources) for item in sorted(dataset.items, key=lambda item: item.record.image_id))
    frozen = Dataset(dataset.taxonomy, stored)
    lines = b"".join(encode_item(item) for item in stored)
    header = {
        "format": _FORMAT,
        "taxonomy": taxonomy.encode(dataset.taxonomy),
        "settings": dict(settings),
        "images": len(stored),
        "manifest_sha256": hashlib.sha256(lines).hexdigest(),
    }
    digest = hashlib.sha256(manifest.encode_line(header)).hexdigest()
    target = datasets / digest[:16]
    if not (target / VERSION).is_file():
        burned = {item.record.image_id: item.truth.redactions for item in dataset.items if item.truth.redactions}
        _write_whole(target, lines, manifest.encode_line({**header, "digest": digest}), stored, sources, burned)
    return DatasetVersion(target, digest, frozen, dict(settings))


def load(root: Path) -> DatasetVersion:
    """The frozen version in a folder; raises DatasetError where header, manifest or digest contradict each other."""
    try:
        header = orjson.loads((root / VERSION).read_bytes())
        lines = (root / MANIFEST).read_bytes()
    except (OSError, orjson.JSONDecodeError) as error:
        raise DatasetError(str(root), str(error), f"{VERSION} and {MANIFEST}", "Name a frozen dataset.") from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise DatasetError(str(root / VERSION), str(header)[:200], f"format {_FORMAT}", "Use a matching dermloop.")
    digest = header.pop("digest", None)
    if hashlib.sha256(lines).hexdigest() != header.get("manifest_sha256") or digest != _digest(header):
        raise DatasetError(str(root / MANIFEST), "changed content", f"digest {digest}", "Restore the folder.")
    items = tuple(decode_line(line, f"{root / MANIFEST}, line {n}") for n, line in enumerate(lines.splitlines(), 1))
    known = taxonomy.decode(header["taxonomy"], str(root / VERSION))
    return DatasetVersion(root, digest, Dataset(known, items), header["settings"])


def encode_item(item: DatasetItem) -> bytes:
    """Canonical manifest line of an item."""
    return manifest.encode_line(
        {
            "image": manifest.encode_record(item.record),
            "truth": manifest.encode_annotation(item.truth),
            "split": item.split.value if item.split else None,
            "provenance": dict(item.provenance),
        }
    )


def decode_line(line: bytes, item: str) -> DatasetItem:
    """The item of a manifest line; raises DatasetError naming `item` where the line is no JSON or incomplete."""
    try:
        return decode_item(orjson.loads(line))
    except (orjson.JSONDecodeError, TypeError) as error:
        raise DatasetError(item, line[:200], f"a JSON object ({error})", "Restore the file.") from error


def decode_item(row: Mapping[str, Any]) -> DatasetItem:
    """The item of a manifest row; raises DatasetError where it is malformed."""
    try:
        split = Split(row["split"]) if row.get("split") else None
        provenance = tuple(sorted((str(k), str(v)) for k, v in row.get("provenance", {}).items()))
        record, truth = manifest.decode_record(row["image"]), manifest.decode_annotation(row["truth"])
    except (KeyError, ValueError, AttributeError) as error:
        raise DatasetError("manifest line", str(row)[:200], f"a complete item ({error})", "Freeze again.") from error
    return DatasetItem(record, truth, split, provenance)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions(datasets: Path) -> Iterator[DatasetVersion]:
    """All frozen versions in a folder, by name."""
    for header in sorted(datasets.glob(f"*/{VERSION}")):
        yield load(header.parent)


def _require_unique(dataset: Dataset) -> None:
    counts = Counter(item.record.image_id for item in dataset.items)
    if doubled := sorted(image_id for image_id, count in counts.items() if count > 1):
        raise DatasetError(f"image {doubled[0]}", f"{counts[doubled[0]]} items", "one item", "Resolve its truth first.")


def _digest(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(manifest.encode_line(header)).hexdigest()


def _stored(item: DatasetItem, sources: Mapping[str, Path]) -> DatasetItem:
    image_id = item.record.image_id
    source = sources.get(image_id)
    if item.split is None:
        raise DatasetError(f"image {image_id}", None, "a split", "Split the dataset before freezing.")
    if source is None or not source.is_file():
        raise DatasetError(f"image {image_id}", str(source), "an image file", "Ingest the image again.")
    if (found := file_digest(source)) != item.stored_digest:
        raise DatasetError(str(source), found, f"digest {item.stored_digest}", "Ingest the image again.")
    if item.truth.redactions:
        digest = hashlib.sha256(pixels.exported(source, item.truth.redactions)).hexdigest()
        kept = tuple(pair for pair in item.provenance if pair[0] != _REDACTED)
        provenance = tuple(sorted((*kept, (_REDACTED, digest))))
        item = replace(item, truth=replace(item.truth, redactions=()), provenance=provenance)
    return replace(item, record=replace(item.record, uri=f"images/{item.stored_digest}{source.suffix.lower()}"))


def _write_whole(
    target: Path,
    lines: bytes,
    header: bytes,
    items: tuple[DatasetItem, ...],
    sources: Mapping[str, Path],
    burned: Mapping[str, tuple[Shape, ...]],
) -> None:
    with whole_folder(target, VERSION) as draft:
        (draft / "images").mkdir()
        for item in items:
            source, place = sources[item.record.image_id], draft / item.record.uri
            if redactions := burned.get(item.record.image_id):
                place.write_bytes(pixels.exported(source, redactions))
            else:
                _link(source, place)
        (draft / MANIFEST).write_bytes(lines)
        (draft / VERSION).write_bytes(header)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
