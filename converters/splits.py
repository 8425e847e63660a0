"""Train, validation and test splits that no patient or lesion crosses and that stay put when images are added."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from converters.annotation import ImageRecord
from converters.dataset import Dataset, DatasetItem, Split
from converters.errors import DatasetError
from converters.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class SplitPolicy:
    """Shares of the three splits (they sum to 1) and the seed of the order in which groups are dealt out."""

    train: float = 0.70
    val: float = 0.15
    test: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        shares = (self.train, self.val, self.test)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
            raise DatasetError("split shares", shares, "three shares that sum to 1", "Give them as 70/15/15.")

    @property
    def shares(self) -> Mapping[Split, float]:
        """Wanted share of the images by split."""
        return {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}


def group_images(
    records: Iterable[ImageRecord], near_duplicates: Iterable[tuple[str, str]] = ()
) -> tuple[tuple[str, ...], ...]:
    """Image ids that belong together: same patient, same lesion, or near-duplicates; each group sorted, groups too."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    images = []
    for record in records:
        images.append(record.image_id)
        source = record.source or ""
        for kind, value in (("patient", record.patient_id), ("lesion", record.lesion_id)):
            if value is not None:
                parent[root(f"image\0{record.image_id}")] = root(f"{kind}\0{source}\0{value}")
    for one, other in near_duplicates:
        parent[root(f"image\0{one}")] = root(f"image\0{other}")
    groups = defaultdict(list)
    for image_id in images:
        groups[root(f"image\0{image_id}")].append(image_id)
    return tuple(sorted(tuple(sorted(group)) for group in groups.values()))


def split(
    dataset: Dataset,
    policy: SplitPolicy,
    previous: Mapping[str, Split] | None = None,
    near_duplicates: Iterable[tuple[str, str]] = (),
) -> Dataset:
    """The dataset with every item in a split: whole groups, stratified by worst diagnosis and skin type.

    An image that `previous` places stays where it was, and pulls its group along. Raises DatasetError where images
    that `previous` put into different splits turn out to belong to one group.
    """
    known = dict(previous or {})
    by_id = {item.record.image_id: item for item in dataset.items}
    groups = group_images((item.record for item in dataset.items), near_duplicates)
    placed = _keep_placed(groups, known)
    overall = Counter(dict.fromkeys(Split, 0))
    for group, part in placed.items():
        overall[part] += len(group)
    for stratum in _strata(groups, by_id, dataset.taxonomy):
        placed.update(_deal(stratum, placed, overall, policy))
    assigned = {image_id: placed[group] for group in groups for image_id in group}
    items = tuple(replace(item, split=assigned[item.record.image_id]) for item in dataset.items)
    return Dataset(dataset.taxonomy, items)


def folds(
    dataset: Dataset, count: int, seed: int = 0, near_duplicates: Iterable[tuple[str, str]] = ()
) -> tuple[tuple[DatasetItem, ...], ...]:
    """The items dealt into `count` parts of like size and like strata; whole groups, equal for equal content.

    Raises DatasetError where there are fewer groups than parts.
    """
    by_id = {item.record.image_id: item for item in dataset.items}
    groups = group_images((item.record for item in dataset.items), near_duplicates)
    if not 2 <= count <= len(groups):
        raise DatasetError("folds", count, f"2 to {len(groups)} parts", "Ask for fewer parts or add patients.")
    sizes = [0] * count
    parts: list[list[DatasetItem]] = [[] for _ in range(count)]
    for stratum in _strata(groups, by_id, dataset.taxonomy):
        here = [0] * count
        for group in sorted(stratum, key=lambda g: _order(g, seed)):
            best = min(range(count), key=lambda n: (here[n] * count + sizes[n], n))
            parts[best] += [by_id[image_id] for image_id in group]
            here[best] += len(group)
            sizes[best] += len(group)
    return tuple(tuple(part) for part in parts)


def _keep_placed(groups: Sequence[tuple[str, ...]], previous: Mapping[str, Split]) -> dict[tuple[str, ...], Split]:
    placed = {}
    for group in groups:
        found = {previous[image_id] for image_id in group if image_id in previous}
        if len(found) > 1:
            raise DatasetError(
                f"images {', '.join(i[:12] for i in group)}",
                sorted(found),
                "one split for one patient, lesion and near-duplicate",
                "Withdraw the image that links them, or start a new split.",
            )
        if found:
            placed[group] = found.pop()
    return placed


def _strata(
    groups: Sequence[tuple[str, ...]], by_id: Mapping[str, DatasetItem], taxonomy: Taxonomy
) -> list[list[tuple[str, ...]]]:
    strata = defaultdict(list)
    for group in groups:
        strata[_stratum([by_id[image_id] for image_id in group], taxonomy)].append(group)
    return [strata[name] for name in sorted(strata)]


def _deal(
    groups: Sequence[tuple[str, ...]],
    placed: Mapping[tuple[str, ...], Split],
    overall: Counter[Split],
    policy: SplitPolicy,
) -> dict[tuple[str, ...], Split]:
    """Splits for the groups of one stratum; `overall` counts all strata, so that rare ones fill every split too."""
    counts = Counter(dict.fromkeys(Split, 0))
    for group in groups:
        if group in placed:
            counts[placed[group]] += len(group)
    dealt = {}
    for group in sorted((g for g in groups if g not in placed), key=lambda g: _order(g, policy.seed)):
        here, everywhere = counts.total() + len(group), overall.total() + len(group)
        wanted = {part: share for part, share in policy.shares.items() if share > 0}
        part = max(wanted, key=lambda p: wanted[p] * (here + everywhere) - counts[p] - overall[p])
        counts[part] += len(group)
        overall[part] += len(group)
        dealt[group] = part
    return dealt


def _order(group: tuple[str, ...], seed: int) -> tuple[int, str]:
    return -len(group), hashlib.sha256(f"{seed}:{group[0]}".encode()).hexdigest()


def _stratum(items: Sequence[DatasetItem], taxonomy: Taxonomy) -> str:
    codes = {lesion.diagnosis for item in items for lesion in item.truth.lesions if lesion.diagnosis}
    worst = max(
        (taxonomy.resolve(code) for code in codes), key=lambda d: (d.severity.rank, d.malignant, -d.id), default=None
    )
    finding = min(item.truth.finding.value for item in items)
    skin = max((item.record.skin_type or 0 for item in items), default=0)
    return f"{worst.code if worst else finding}|{skin}"
