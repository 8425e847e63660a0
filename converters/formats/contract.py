"""What a format is: it reads items and oddities, it writes pieces of files and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from converters.annotation import Shape
from converters.dataset import DatasetItem, Split
from converters.errors import DatasetError
from converters.geometry import ImageSize
from converters.label_studio.policy import ExportPolicy
from converters.report import Entry
from converters.taxonomy import Taxonomy
from converters.unchecked import made_from_checked

LESION_FIELDS = frozenset({"severity", "score", "region_id", "origin", "probabilities", "attributes"})
ANSWER_FIELDS = frozenset(
    {"author", "level", "created_at", "model_version", "lead_time", "note", "answers", "relations", "annotation_id"}
)
RECORD_FIELDS = frozenset(
    {"original_name", "patient_id", "lesion_id", "age", "sex", "site", "skin_type", "confirmation", "source"}
    | {"device", "consent", "synthetic", "extra"}
)
ALL_FIELDS = LESION_FIELDS | ANSWER_FIELDS | RECORD_FIELDS | {"finding", "redactions"}
"""What a format may carry beside boxes, shapes and diagnoses, by field name."""


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """How a source is read: under which classes, with the images of which folder, and whose answers count.

    `sizes` are image sizes by file stem, for sources whose labels are relative and whose images are not at hand.
    """

    taxonomy: Taxonomy
    images: Path | None = None
    policy: ExportPolicy = field(default_factory=ExportPolicy)
    image_key: str | None = None
    sizes: Mapping[str, ImageSize] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WriteSettings:
    """How a target is written.

    `keypoints` are the names of all points in the dataset, in the order of their columns. `prefix` goes before every
    image path in formats that hold addresses. `crop_padding` and `crop_jitter` are shares of a lesion box's sides.
    Raises DatasetError for shares below 0, for no copy, and for several copies without a jitter, which would be equal.
    """

    taxonomy: Taxonomy
    keypoints: tuple[str, ...] = ()
    prefix: str = ""
    job: str = "dermloop"
    crop_padding: float = 0.1
    crop_jitter: float = 0.0
    crop_copies: int = 1

    def __post_init__(self) -> None:
        for name, share in (("crop padding", self.crop_padding), ("crop jitter", self.crop_jitter)):
            if not 0 <= share < math.inf:
                raise DatasetError(name, share, "a share of the box's sides, 0 or more", "Correct the option.")
        if self.crop_copies < 1:
            raise DatasetError("crop copies", self.crop_copies, "one or more", "Correct the option.")
        if self.crop_copies > 1 and not self.crop_jitter:
            expected = "one crop of a lesion, or a jitter that makes its crops differ"
            raise DatasetError("crop copies", self.crop_copies, expected, "Add --crop-jitter.")


_UNSPLIT = Split.TRAIN.value


@dataclass(frozen=True, slots=True)
class Placed:
    """An item under the file name that is its own in the target; `image` is the file of its bytes where they are.

    `redactions` are burned out of the bytes on their way; the item no longer names them.
    """

    item: DatasetItem
    name: str
    image: Path | None = None
    redactions: tuple[Shape, ...] = ()

    @property
    def stem(self) -> str:
        """The name without its suffix; no two items of a target share it."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def split(self) -> str:
        """Folder name of the item's split; `train` where the dataset was not split."""
        return _UNSPLIT if self.item.split is None else str(self.item.split)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to be appended to a file of the target, by path inside the target."""

    path: str
    content: bytes


piece = made_from_checked(Piece)
"""The same as `Piece`, for the formats that write one for each of ten thousands of images."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image to be copied to a path of the target, its redactions burned out."""

    path: str
    placed: Placed


class Shapes(StrEnum):
    """How much of a region's shape a format keeps."""

    NONE = "none"
    BOX = "box"
    ROTATED = "rotated box"
    PIXELS = "pixels"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Carries:
    """What a format has words for. `fields` are names of `Lesion`, `Annotation` and `ImageRecord` fields.

    `tolerance` is how far an edge may move, in pixels; `background` is false where lesion-free images have no place;
    `addresses` is true where an image without bytes keeps its address instead of its name in the target;
    `boxes_as_pixels` where a plain box is kept as the pixels it covers; `instances` is false where regions of one class
    become one; `whole_image` is true where a diagnosis may hold for a picture without a box.
    """

    shapes: Shapes
    fields: frozenset[str] = frozenset()
    splits: bool = True
    background: bool = True
    keypoints: bool = False
    addresses: bool = False
    boxes_as_pixels: bool = False
    instances: bool = True
    whole_image: bool = False
    tolerance: float = 1e-3


ReadResult: TypeAlias = Iterator[DatasetItem | Entry]
Read: TypeAlias = Callable[[Path, ReadSettings], ReadResult]
Write: TypeAlias = Callable[[Iterable[Placed], WriteSettings], Iterator[Piece | Picture]]


@dataclass(frozen=True, slots=True)
class Format:
    """One row of the table of formats."""

    name: str
    summary: str
    sniff: Callable[[Path], bool]
    read: Read | None = None
    write: Write | None = None
    carries: Carries = Carries(Shapes.BOX)
    notes: Mapping[str, str] = field(default_factory=dict)
