"""What Label Studio stores of a prediction, whoever brings it: the `/predict` route or a push."""

from __future__ import annotations

from typing import Any

from converters.label_studio import results
from converters.taxonomy import Taxonomy
from ml_backend.pipeline import ImagePrediction


def entry(prediction: ImagePrediction, taxonomy: Taxonomy) -> dict[str, Any]:
    """Label Studio's prediction: regions, the version, and a score that is lowest where the model is least sure."""
    return {
        "result": results.encode(prediction.lesions, prediction.size, taxonomy),
        "score": 1 - prediction.uncertainty,
        "model_version": prediction.model_version,
    }
