"""Grouped cross-validation: the training and validation images dealt into folds; the locked test split stays out."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from converters.dataset import Dataset, DatasetItem, DatasetVersion, Split
from converters.splits import group_images
from training.errors import DataError


def folds(version: DatasetVersion, count: int, seed: int = 0) -> tuple[DatasetVersion, ...]:
    """So many variants of a version, each with another fold as validation split; no patient or lesion crosses.

    The variants share the version's images on disk; their digests name version, seed and fold. Raises DataError with
    fewer groups than folds.
    """
    groups = group_images(item.record for item in version.dataset.items if item.split is not Split.TEST)
    if count < 2 or len(groups) < count:
        raise DataError("folds", count, f"2 to {len(groups)} folds, a patient or lesion in each", "Choose fewer folds.")
    ordered = sorted(groups, key=lambda group: (-len(group), _order(group[0], seed)))
    fold_of = {image_id: number % count for number, group in enumerate(ordered) for image_id in group}
    return tuple(_variant(version, fold_of, fold, seed, count) for fold in range(count))


def _variant(version: DatasetVersion, fold_of: dict[str, int], fold: int, seed: int, count: int) -> DatasetVersion:
    def placed(item: DatasetItem) -> DatasetItem:
        if item.split is Split.TEST:
            return item
        return replace(item, split=Split.VAL if fold_of[item.record.image_id] == fold else Split.TRAIN)

    digest = hashlib.sha256(f"{version.digest}|fold {fold} of {count}|{seed}".encode()).hexdigest()
    dataset = Dataset(version.dataset.taxonomy, tuple(placed(item) for item in version.dataset.items))
    return replace(version, digest=digest, dataset=dataset)


def _order(image_id: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{image_id}".encode()).hexdigest()
