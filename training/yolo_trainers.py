"""ultralytics' trainers with a loss that counts each lesion by its weight; imported by the detector's door alone.

On its way to the loss the weight travels in the class number: what that has behind its point is what the weight lacks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils.torch_utils import unwrap_model

from training.datasets import WEIGHTS


class WeightedDetectionTrainer(DetectionTrainer):  # type: ignore[misc, unused-ignore]
    """Trains boxes; each lesion counts by its weight."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """The dataset of a split; the lesions to train on carry their weights."""
        return _weighted(super().build_dataset(img_path, mode, batch), mode)

    def _setup_train(self) -> None:
        super()._setup_train()
        weigh_lesions(unwrap_model(self.model))


class WeightedSegmentationTrainer(SegmentationTrainer):  # type: ignore[misc, unused-ignore]
    """Trains boxes with masks; each lesion's box and score count by its weight, all masks alike."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """The dataset of a split; the lesions to train on carry their weights."""
        return _weighted(super().build_dataset(img_path, mode, batch), mode)

    def _setup_train(self) -> None:
        super()._setup_train()
        weigh_lesions(unwrap_model(self.model))


def weigh_lesions(model: Any) -> None:
    """Gives the training model, and not its stored average, a criterion whose targets are scaled by the weights."""
    model.criterion = model.init_criterion()
    assigner = model.criterion.assigner
    assign = assigner.forward

    def weighted(scores: Any, boxes: Any, points: Any, labels: Any, truths: Any, mask: Any, **extra: Any) -> Any:
        classes, chosen_boxes, targets, hit, chosen = assign(scores, boxes, points, labels, truths, mask, **extra)
        if labels.shape[1]:
            weights = 1 - labels.squeeze(-1).frac()
            targets = targets * weights.gather(1, chosen).unsqueeze(-1)
        return classes, chosen_boxes, targets, hit, chosen

    assigner.forward = weighted


def _weighted(dataset: Any, mode: str) -> Any:
    """The dataset; training labels whose weights are on disk have what these lack behind the point of their class."""
    for label in dataset.labels if mode == "train" else ():
        picture = Path(label["im_file"])
        path = picture.parents[2] / WEIGHTS / f"{picture.stem}.txt"
        if path.is_file():
            weights = np.loadtxt(path, dtype=np.float32, ndmin=2)
            if weights.shape == label["cls"].shape:
                label["cls"] = label["cls"] + 1 - weights
    return dataset
