"""What a report calls its metrics, in words that a clinician reads: a short name and what the figure says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wording:
    """A metric's name, one sentence on what it says, and whether it is a share shown as a percentage."""

    name: str
    says: str
    share: bool = True


_KNOWN: Mapping[str, Wording] = {
    "map50": Wording("Detection (mAP50)", "Precision over all recalls; a box counts from half overlap.", False),
    "map50_95": Wording("Detection, exact boxes (mAP50-95)", "Precision over all recalls, stricter overlaps.", False),
    "detection_sensitivity": Wording("Lesions found", "Share of true lesions under a box that is shown to annotators."),
    "false_positives_per_image": Wording("False alarms", "Boxes on no lesion, for each picture.", False),
    "dice": Wording("Outlines (Dice)", "Overlap of drawn and true outlines, averaged over pictures.", False),
    "outline_iou": Wording("Outlines (IoU)", "Shared area over the area of both, averaged over pictures.", False),
    "accuracy": Wording("Accuracy", "Share of lesions read right."),
    "balanced_accuracy": Wording("Balanced accuracy", "Share of lesions read right, each class counting alike."),
    "top3": Wording("Among the first three", "Share of lesions whose true class is among the three likeliest."),
    "auc_macro": Wording("Separation of classes (AUC)", "One against the rest, averaged over classes.", False),
    "malignant_auc": Wording("Separation of malignancy (AUC)", "Malignant above benign lesions in order.", False),
    "malignant_sensitivity": Wording("Malignant lesions flagged", "At the served threshold, given the true box."),
    "malignant_specificity": Wording("Benign lesions left alone", "At the served threshold, given the true box."),
    "melanoma_sensitivity": Wording("Melanomas flagged", "At the served threshold, given the true box."),
    "served_malignant_sensitivity": Wording(
        "Malignant lesions found and flagged", "Both parts together, as annotators see them."
    ),
    "brier": Wording("Brier score", "Squared distance of the probabilities from the truth; 0 is best.", False),
    "calibration_error": Wording("Calibration error", "How far certainty is from being right; 0 is best.", False),
}
HEADLINES = (
    "detection_sensitivity",
    "false_positives_per_image",
    "dice",
    "malignant_sensitivity",
    "malignant_specificity",
    "melanoma_sensitivity",
    "balanced_accuracy",
    "calibration_error",
)
"""The metrics at the top of a report, in order."""


def wording(metric: str) -> Wording:
    """The words for a metric; a class's recall is named by its class, an unknown metric by itself."""
    if metric.startswith("recall."):
        return Wording(f"Recognised: {metric.removeprefix('recall.')}", "Share of this class that was read so.")
    return _KNOWN.get(metric, Wording(metric, "", False))
