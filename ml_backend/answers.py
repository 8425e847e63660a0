"""What programs are told over REST: plain JSON forms of predictions, with a recommendation in words."""

from __future__ import annotations

import base64
from enum import StrEnum
from typing import Any

from converters.annotation import Lesion
from converters.geometry import PixelBox, Polygon
from converters.taxonomy import Target, Taxonomy
from ml_backend import overlay
from ml_backend.bundle import ModelBundle
from ml_backend.images import DecodedImage
from ml_backend.pipeline import ImagePrediction
from ml_backend.reading import Reading, display_name
from ml_backend.service import Outcome

DISCLAIMER = "Supports annotation and research; no diagnosis."
_TOP = 3


class Recommendation(StrEnum):
    """What the reading amounts to, in a sentence."""

    EXAMINE = "Suspicious for malignancy: a dermatologist should examine this lesion."
    CONFIRM = "Likely benign; it should still be confirmed by a dermatologist."
    ABSTAINS = "The model cannot tell: a dermatologist should examine this lesion."
    UNREAD = "A lesion was found but not read: a dermatologist should examine it."
    NOTHING = "No lesion was found. That is no proof that there is none."


def recommendation(prediction: ImagePrediction, bundle: ModelBundle) -> Recommendation:
    """The sentence for the most worrying lesion of a picture."""
    if not prediction.lesions:
        return Recommendation.NOTHING
    readings = [reading for reading in prediction.readings if reading is not None]
    if not readings:
        return Recommendation.UNREAD
    limit = bundle.classifier.operating_point if bundle.classifier else None
    if any(reading.malignant >= (0.5 if limit is None else limit) for reading in readings):
        return Recommendation.EXAMINE
    return Recommendation.ABSTAINS if any(reading.abstains for reading in readings) else Recommendation.CONFIRM


def analysed(outcome: Outcome, bundle: ModelBundle, heatmap: bool = False) -> dict[str, Any]:
    """The answer for one picture of `/v1/analyze`, or its error."""
    prediction = outcome.prediction
    if prediction is None:
        return {"item": outcome.item, "error": str(outcome.error)}
    answer: dict[str, Any] = {
        "item": outcome.item,
        "width": prediction.size.width,
        "height": prediction.size.height,
        "uncertainty": round(prediction.uncertainty, 6),
        "recommendation": recommendation(prediction, bundle).value,
        "lesions": [
            _lesion(lesion, reading, bundle.taxonomy)
            for lesion, reading in zip(prediction.lesions, prediction.readings, strict=True)
        ],
    }
    if heatmap and outcome.image is not None:
        picture = heatmap_of(outcome.image, prediction, bundle)
        answer["heatmap"] = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
    return answer


def heatmap_of(image: DecodedImage, prediction: ImagePrediction, bundle: ModelBundle) -> bytes:
    """A JPEG of a picture with its boxes and where the classifier looked."""
    padding = bundle.classifier.crop_padding if bundle.classifier and bundle.detector else 0.0
    return overlay.draw(image, prediction.lesions, prediction.readings, padding)


def uploaded(prediction: ImagePrediction, bundle: ModelBundle) -> dict[str, Any]:
    """The answer of `POST /predict` for one uploaded picture: its most worrying lesion first, then all boxes."""
    worst = _worst(prediction)
    reading = prediction.readings[worst] if worst is not None else None
    ranked = sorted(reading.probabilities, key=lambda pair: -pair[1])[:_TOP] if reading else []
    return {
        "predictions": [
            {"class": name, "confidence": round(share, 6), "label": _named(name, reading, bundle.taxonomy)}
            for name, share in ranked
        ],
        "top_prediction": ranked[0][0] if ranked else None,
        "severity": prediction.lesions[worst].severity if worst is not None else None,
        "lesions": [
            _lesion(lesion, its, bundle.taxonomy)
            for lesion, its in zip(prediction.lesions, prediction.readings, strict=True)
        ],
        "recommendation": recommendation(prediction, bundle).value,
        "model_version": prediction.model_version,
        "disclaimer": DISCLAIMER,
    }


def model(bundle: ModelBundle) -> dict[str, Any]:
    """What a bundle consists of, for `GET /v1/models`."""
    detector, classifier = bundle.detector, bundle.classifier
    return {
        "version": bundle.version,
        "detector": {"task": detector.task.value, "input_size": detector.input_size} if detector else None,
        "classifier": {
            "target": classifier.target.value,
            "classes": list(classifier.classes),
            "input_size": classifier.input_size,
        }
        if classifier
        else None,
        "lineage": dict(bundle.lineage),
    }


def _worst(prediction: ImagePrediction) -> int | None:
    def worry(number: int) -> tuple[float, float]:
        reading = prediction.readings[number]
        return (reading.malignant if reading else 0.0, prediction.lesions[number].score or 0.0)

    return max(range(len(prediction.lesions)), key=worry, default=None)


def _lesion(lesion: Lesion, reading: Reading | None, taxonomy: Taxonomy) -> dict[str, Any]:
    row: dict[str, Any] = {
        "box": _box(lesion.box),
        "score": round(lesion.score, 6) if lesion.score is not None else None,
        "diagnosis": lesion.diagnosis,
        "severity": lesion.severity,
        "outline": [[round(x, 2), round(y, 2)] for x, y in lesion.shape.outline]
        if isinstance(lesion.shape, Polygon)
        else None,
    }
    if reading is None:
        return row
    return {
        **row,
        "malignant": round(reading.malignant, 6),
        "abstains": reading.abstains,
        "differential": [{"class": name, "label": _named(name, reading, taxonomy)} for name in reading.differential],
        "probabilities": {name: round(share, 6) for name, share in reading.probabilities},
        "labels": {name: _named(name, reading, taxonomy) for name, _ in reading.probabilities},
        "severities": {name: round(share, 6) for name, share in reading.severity or ()},
    }


def _box(box: PixelBox) -> list[float]:
    return [round(edge, 3) for edge in (box.x_min, box.y_min, box.x_max, box.y_max)]


def _named(name: str, reading: Reading | None, taxonomy: Taxonomy) -> str:
    return display_name(name, reading.target if reading else Target.DIAGNOSIS, taxonomy)
