"""File names in a target: safe on every system, one for each image, and the same for the same input."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path, PurePosixPath

from converters.annotation import ImageRecord
from converters.dataset import DatasetItem
from converters.formats.contract import Placed
from converters.formats.located import has_bytes
from converters.images import IMAGE_SUFFIXES
from converters.unchecked import made_from_checked

_PLAIN = re.compile(
    r"(?!con|prn|aux|nul|com\d|lpt\d)[a-z0-9_-][a-z0-9_.-]{,90}\.(?:jpe?g|png)", re.IGNORECASE | re.ASCII
)
_made = made_from_checked(Placed)
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\s]+')
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_LONGEST = 180


class Names(StrEnum):
    """Whether images keep their own names or are named by content, so that no name tells who is on them."""

    ORIGINAL = "original"
    CONTENT = "content"


def placed(items: Iterable[DatasetItem], names: Names) -> Iterator[Placed]:
    """The items under names whose stems are all different, whatever the system does with case; in the given order."""
    taken: set[str] = set()
    by_content = names is Names.CONTENT
    for item in items:
        record = item.record
        image = _image(record) if has_bytes(record.image_id) else None
        name = _content_name(item) if by_content else _safe(record.original_name or record.uri)
        stem, dot, suffix = name.rpartition(".")
        key = _key(stem)
        if key in taken:
            stem = f"{stem}-{_digest(item)[:12]}"
            name, key = f"{stem}{dot}{suffix}", _key(stem)
        taken.add(key)
        if by_content:
            item = _anonymous(item)
        redactions = item.truth.redactions if image is not None else ()
        if redactions:
            item = replace(item, truth=replace(item.truth, redactions=()))
        yield _made(item, name, image, redactions)


def _image(record: ImageRecord) -> Path | None:
    path = Path(record.uri)
    return path if path.is_file() else None


def _safe(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    name = text.replace("\\", "/").rpartition("/")[2]
    name = name if name.isascii() else unicodedata.normalize("NFC", name)
    name = _UNSAFE.sub("_", name).lstrip(".") or "image"
    stem, dot, ending = name.rpartition(".")
    suffix = dot + ending
    if suffix.lower() == ".bmp":
        suffix = ".png"
    elif suffix.lower() not in IMAGE_SUFFIXES:
        stem, suffix = name, ".jpg"
    while len(stem.encode()) > _LONGEST:
        stem = stem[:-1]
    return f"{'_' if _RESERVED.match(stem) else ''}{stem or 'image'}{suffix}"


def _content_name(item: DatasetItem) -> str:
    suffix = PurePosixPath(_safe(item.record.original_name or item.record.uri)).suffix.lower()
    return f"{_digest(item)}{suffix}"


def _digest(item: DatasetItem) -> str:
    image_id = item.record.image_id
    return image_id if has_bytes(image_id) else hashlib.sha256(image_id.encode()).hexdigest()


def _anonymous(item: DatasetItem) -> DatasetItem:
    return replace(item, record=replace(item.record, original_name="", uri=_content_name(item)))


def _key(stem: str) -> str:
    return stem.lower() if stem.isascii() else unicodedata.normalize("NFC", stem).casefold()
