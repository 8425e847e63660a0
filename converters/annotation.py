"""Who saw what on which image, in which tier, when, and starting from which model's suggestion."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import TypeAlias

from converters.geometry import Ellipse, ImageSize, KeyPoint, PixelBox, Polygon, RleMask, RotatedBox

Shape: TypeAlias = PixelBox | RotatedBox | Ellipse | Polygon | RleMask


class TruthLevel(IntEnum):
    """How strong a label is; a higher level overrules a lower one."""

    MODEL = 0
    TECHNICIAN = 1
    DERMATOLOGIST = 2
    QA = 3
    CONSENSUS = 4
    HISTOPATHOLOGY = 5


class Finding(StrEnum):
    """What the reader says of the whole image; three of the four are negatives that must never be confused."""

    LESIONS = "lesions"
    LESION_FREE = "lesion-free"
    NOT_LOOKED_AT = "not-looked-at"
    UNGRADABLE = "ungradable"


class Origin(StrEnum):
    """How a region came about, in Label Studio's words: it measures the correction effort."""

    MANUAL = "manual"
    PREDICTION = "prediction"
    PREDICTION_CHANGED = "prediction-changed"


class Confirmation(StrEnum):
    """How the diagnosis of a published image was established."""

    HISTOPATHOLOGY = "histopathology"
    FOLLOW_UP = "follow-up"
    CONSENSUS = "consensus"
    CONFOCAL = "confocal"
    CLINICAL = "clinical"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Lesion:
    """One marked region: its shape in pixels of the upright image, and what the reader or the model calls it.

    `box` always surrounds the region; `shape` is the region itself where that is more than the box.
    `diagnosis` is a taxonomy code; `severity` one of low, moderate, high; `score` the model's certainty in [0, 1].
    """

    box: PixelBox
    diagnosis: str | None = None
    severity: str | None = None
    score: float | None = None
    shape: Shape | None = None
    keypoints: tuple[KeyPoint, ...] = ()
    region_id: str | None = None
    origin: Origin = Origin.MANUAL
    probabilities: tuple[tuple[str, float], ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """What it is counted as: its diagnosis, or `open`, `open (high)` where there is none."""
        return self.diagnosis or (f"open ({self.severity})" if self.severity else "open")


@dataclass(frozen=True, slots=True)
class Relation:
    """A link that a reader drew from one region to another, by region id; direction as Label Studio writes it."""

    from_region: str
    to_region: str
    direction: str = "right"
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Annotation:
    """One reader's (or one model's) answer for one image.

    `redactions` are regions to be burned out of the pixels before the image leaves the house; they are no lesions.
    """

    image_id: str
    finding: Finding
    lesions: tuple[Lesion, ...] = ()
    level: TruthLevel = TruthLevel.TECHNICIAN
    author: str = ""
    annotation_id: str = ""
    created_at: datetime | None = None
    model_version: str | None = None
    lead_time: float | None = None
    draft: bool = False
    note: str = ""
    answers: tuple[tuple[str, str], ...] = ()
    redactions: tuple[Shape, ...] = ()
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image and what is known of its subject; None is unknown, never "no".

    `image_id` is the SHA-256 of the stored bytes; `uri` is where those bytes are, relative to the dataset or absolute.
    `skin_type` is the Fitzpatrick type 1 to 6; `age` is in years.
    """

    image_id: str
    uri: str
    size: ImageSize
    original_name: str = ""
    patient_id: str | None = None
    lesion_id: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    skin_type: int | None = None
    confirmation: Confirmation = Confirmation.UNKNOWN
    source: str | None = None
    device: str | None = None
    consent: bool | None = None
    synthetic: bool = False
    extra: tuple[tuple[str, str], ...] = field(default=())
