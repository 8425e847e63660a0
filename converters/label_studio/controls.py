"""Names of the controls in our labelling configs and of the fields in our tasks: one home for both directions."""

from __future__ import annotations

from enum import IntEnum, StrEnum

IMAGE = "image"
DIAGNOSIS = "diagnosis"
MASK = "mask"
FINDING = "finding"
QUALITY = "quality"
VERDICT = "verdict"
REASON = "reason"
READING = "reading"


class Tier(IntEnum):
    """The three rounds of review."""

    TECHNICIAN = 1
    DERMATOLOGIST = 2
    QA = 3


class Verdict(StrEnum):
    """What a reviewer decides; the value is the choice shown in Label Studio."""

    ACCEPT = "Accept"
    CORRECT = "Correct"
    SEND_BACK = "Send back"
    APPROVE = "Approve"
    EXCLUDE = "Exclude"
    ESCALATE = "Escalate"


class TaskField(StrEnum):
    """Keys in a Label Studio task's `data`; the Data Manager shows them as columns."""

    IMAGE = "image"
    IMAGE_ID = "image_id"
    KEY = "key"
    NAME = "name"
    STATE = "state"
    ASSIGNEE = "assignee"
    REASON = "reason"
    NOTE = "note"
    PRIORITY = "priority"
    SYNTHETIC = "synthetic"
    BLIND = "blind"
    HEATMAP = "heatmap"


FINDING_LABELS = {"lesions": "Lesions marked", "lesion-free": "Lesion-free", "ungradable": "Ungradable"}
OPEN_LABELS: dict[str | None, str] = {
    "high": "High severity, diagnosis open",
    "moderate": "Moderate severity, diagnosis open",
    "low": "Low severity, diagnosis open",
    None: "Lesion, not classified",
}
"""Box labels for a lesion without a diagnosis, by severity: all that a severity classifier or a detector can say."""

REDACT = "redact"
"""Label of a region that is burned out of the pixels before an image leaves the house; it is no lesion."""

QUALITY_LABELS = ("Good", "Usable", "Poor")
VERDICTS = {
    Tier.DERMATOLOGIST: (Verdict.ACCEPT, Verdict.CORRECT, Verdict.SEND_BACK),
    Tier.QA: (Verdict.APPROVE, Verdict.CORRECT, Verdict.SEND_BACK, Verdict.EXCLUDE),
}
