"""ultralytics' trainers, where a lesion counts by its weight; imported by the detector's door alone.

On its way to the loss the weight travels in the class number: what that has behind its point is what the weight lacks.
Pictures may be mirrored at their diagonal, and processors with 16-bit units use them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import torch
from ultralytics.data.augment import BaseTransform
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from training.datasets import WEIGHTS


class _Weighted(BaseTrainer):  # type: ignore[misc, unused-ignore]
    half: ClassVar[bool] = False
    last: Path
    best: Path

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """The dataset of a split; the lesions to train on carry their weights, their pictures are mirrored."""
        return _mirrored(_weighted(super().build_dataset(img_path, mode, batch), mode), mode, self.args)

    def save_model(self) -> Any:
        """Writes an epoch's checkpoints whole: a kill in the middle leaves those of the epoch before."""
        kept = self.last, self.best
        self.last, self.best = (path.with_name(f"draft-{path.name}") for path in kept)
        drafts = self.last, self.best
        try:
            saved = super().save_model()
        finally:
            self.last, self.best = kept
        for draft, path in zip(drafts, kept, strict=True):
            if draft.is_file():
                draft.replace(path)
        return saved

    def _setup_train(self) -> None:
        super()._setup_train()
        _prepare(unwrap_model(self.model), self.half)
        _fuse(self.optimizer)


class WeightedDetectionTrainer(_Weighted, DetectionTrainer):  # type: ignore[misc, unused-ignore]
    """Trains boxes; each lesion counts by its weight."""


class WeightedSegmentationTrainer(_Weighted, SegmentationTrainer):  # type: ignore[misc, unused-ignore]
    """Trains boxes with masks; each lesion's box and score count by its weight, all masks alike."""


@dataclass(frozen=True, slots=True)
class EpochFile:
    """Called after each epoch: appends its figures to a file, for the process that waits for several others.

    ultralytics trains on several graphics cards in processes of their own and sends its callbacks there by pickling.
    """

    path: Path

    def __call__(self, trainer: Any) -> None:
        """Appends a line of JSON; only the first of the processes does."""
        if RANK in (-1, 0):
            with self.path.open("ab") as stream:
                stream.write(orjson.dumps(epoch_figures(trainer), option=orjson.OPT_APPEND_NEWLINE))


def epoch_figures(trainer: Any) -> dict[str, float]:
    """What a trainer has to say after an epoch: its number from 1, loss, learning rate, and validation's metrics."""
    losses = trainer.tloss.values() if isinstance(trainer.tloss, dict) else trainer.tloss
    figures = {name.removeprefix("metrics/"): float(value) for name, value in trainer.metrics.items()}
    rate = float(next(iter(trainer.lr.values())))
    return {"epoch": int(trainer.epoch) + 1, "loss": sum(map(float, losses)), "learning_rate": rate, **figures}


class Transpose(BaseTransform):  # type: ignore[misc, unused-ignore]
    """Mirrors a picture with its boxes and outlines at the main diagonal, with a probability.

    Together with both flips that makes all eight symmetries of a square: a lesion has no upside.
    """

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """The labels of ultralytics' pipeline, mirrored or as they came."""
        if random.random() >= self.probability:
            return labels
        labels["img"] = np.ascontiguousarray(labels["img"].transpose(1, 0, 2))
        instances = labels["instances"]
        instances.convert_bbox("xywh")
        instances._bboxes.bboxes = instances.bboxes[:, [1, 0, 3, 2]]
        instances.segments = instances.segments[..., ::-1].copy()
        return labels


def has_half_units() -> bool:
    """Whether this processor multiplies matrices of bfloat16 in hardware; elsewhere float32 is faster."""
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


def with_half(kind: type[Any]) -> type[Any]:
    """A trainer class whose network runs in bfloat16 on the CPU, for which ultralytics has no argument."""
    return type(kind.__name__, (kind,), {"half": True})


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


def _prepare(model: Any, half: bool) -> None:
    weigh_lesions(model)
    if half:
        _halve(model)


def _fuse(optimizer: Any) -> None:
    """Lets Adam go over a weight in one pass where torch would make nine; the numbers agree to rounding."""
    if isinstance(optimizer, torch.optim.Adam):
        for group in optimizer.param_groups:
            group["fused"] = True


def _halve(model: Any) -> None:
    """Lets the network run in bfloat16 while it trains on the CPU; weights, losses and validation stay in float32."""
    model.to(memory_format=torch.channels_last)
    full = model.predict

    def predict(batch: Any, *rest: Any, **options: Any) -> Any:
        if not model.training:
            return full(batch, *rest, **options)
        with torch.autocast("cpu", torch.bfloat16):
            found = full(batch.contiguous(memory_format=torch.channels_last), *rest, **options)
        return _float(found)

    model.predict = predict


def _float(found: Any) -> Any:
    if torch.is_tensor(found):
        return found.float()
    if isinstance(found, dict):
        return {name: _float(part) for name, part in found.items()}
    return type(found)(_float(part) for part in found)


def _mirrored(dataset: Any, mode: str, settings: Any) -> Any:
    """The dataset, its training pictures mirrored at the diagonal as often as at both axes."""
    probability = min(settings.flipud, settings.fliplr)
    if mode != "train" or probability <= 0:
        return dataset
    build = dataset.build_transforms

    def transforms(found: Any) -> Any:
        steps = build(found)
        steps.insert(len(steps.transforms) - 1, Transpose(probability))
        return steps

    dataset.build_transforms = transforms  # they are built anew when mosaics end
    dataset.transforms = transforms(settings)
    return dataset


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
