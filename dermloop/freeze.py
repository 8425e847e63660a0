"""Approved truth becomes a dataset version: resolved by declared precedence, split by patient, frozen by content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import orjson
from PIL import Image, ImageStat

from converters import dataset as datasets
from converters.annotation import Annotation, Confirmation, ImageRecord, Shape, TruthLevel
from converters.dataset import Dataset, DatasetItem, DatasetVersion, Split
from converters.duplicates import near_duplicates
from converters.errors import DatasetError, ImageError
from converters.splits import SplitPolicy, group_images, split
from converters.taxonomy import Taxonomy
from converters.truth import TruthPolicy, resolve_all

HISTORY = "history.jsonl"
_PLAIN = 1.0
_CONFIRMED = frozenset(
    {Confirmation.HISTOPATHOLOGY, Confirmation.FOLLOW_UP, Confirmation.CONSENSUS, Confirmation.CONFOCAL}
)


@dataclass(frozen=True, slots=True)
class FreezeReport:
    """The frozen version, how many images each split holds, and why the others were left out."""

    version: DatasetVersion
    images: int
    lesions: int
    splits: tuple[tuple[str, int], ...]
    without_truth: int = 0
    ambiguous: tuple[str, ...] = field(default=())


def freeze(
    approved: Iterable[tuple[ImageRecord, Sequence[Annotation]]],
    home: Path,
    taxonomy: Taxonomy,
    truth: TruthPolicy | None = None,
    splits: SplitPolicy | None = None,
    test_truth: TruthLevel = TruthLevel.DERMATOLOGIST,
) -> FreezeReport:
    """The dataset version of all approved images; nobody moves between the splits of earlier versions.

    Patients, lesions and near-duplicates stay in one split. The test split takes in whole groups whose every label is
    of `test_truth` or stronger, or confirmed outside (histopathology, follow-up, consensus); the others teach.
    Raises DatasetError where nothing is approved yet, or where an image's file is missing or changed.
    """
    truth, splits = truth or TruthPolicy(), splits or SplitPolicy()
    pairs = list(approved)
    records = {record.image_id: record for record, _ in pairs}
    resolution = resolve_all((annotation for _, found in pairs for annotation in found), truth)
    if not resolution.truths:
        raise DatasetError("approved labels", len(pairs), "at least one approved image", "Approve images in tier 3.")
    marked = {record.image_id: _redactions(found) for record, found in pairs}
    answers = (replace(answer, redactions=marked[answer.image_id]) for answer in resolution.truths)
    items = tuple(_item(records[answer.image_id], answer) for answer in answers)
    sources = {image_id: home / records[image_id].uri for image_id in records}
    whole = _split(Dataset(taxonomy, items), splits, previous_splits(home / "datasets"), sources, test_truth)
    settings = {
        "truth": {"minimum": truth.minimum.name.lower(), "agreement_iou": truth.agreement_iou},
        "splits": {"train": splits.train, "val": splits.val, "test": splits.test, "seed": splits.seed},
        "test_truth": test_truth.name.lower(),
    }
    version = datasets.freeze(whole, sources, home / "datasets", settings)
    _remember(home / "datasets", version)
    parts = Counter(item.split for item in version.dataset.items)
    return FreezeReport(
        version=version,
        images=len(items),
        lesions=sum(len(item.truth.lesions) for item in items),
        splits=tuple((part.value, parts[part]) for part in Split),
        without_truth=len(resolution.without_truth),
        ambiguous=tuple(str(error) for error in resolution.ambiguous),
    )


def previous_splits(folder: Path) -> dict[str, Split]:
    """Where earlier versions placed each image; the first placement holds for ever."""
    placed: dict[str, Split] = {}
    for name in history(folder):
        for item in datasets.load(folder / name).dataset.items:
            if item.split is not None:
                placed.setdefault(item.record.image_id, item.split)
    return placed


def history(folder: Path) -> list[str]:
    """Names of the versions frozen here, oldest first."""
    path = folder / HISTORY
    if not path.is_file():
        return []
    return [orjson.loads(line)["version"] for line in path.read_bytes().splitlines() if line]


def latest(folder: Path) -> DatasetVersion:
    """The version frozen last; raises DatasetError where there is none."""
    names = history(folder)
    if not names:
        raise DatasetError(str(folder), "no version", "a frozen dataset", "Run `dermloop freeze` first.")
    return datasets.load(folder / names[-1])


def _redactions(answers: Iterable[Annotation]) -> tuple[Shape, ...]:
    """What anybody marked to be burned out: one reader's word is enough, and a later reader need not repeat it."""
    return tuple(dict.fromkeys(shape for answer in answers for shape in answer.redactions))


def _split(
    dataset: Dataset,
    policy: SplitPolicy,
    previous: dict[str, Split],
    sources: Mapping[str, Path],
    test_truth: TruthLevel,
) -> Dataset:
    """Strong groups by the policy, weak ones between training and validation alone; what was placed stays."""
    present = {item.record.image_id: item for item in dataset.items}
    pairs = [pair for pair in _look_alikes(present, sources) if len({previous.get(one) for one in pair} - {None}) < 2]
    groups = group_images((item.record for item in dataset.items), pairs)
    strong = {
        image_id for group in groups if all(_is_strong(present[one], test_truth) for one in group) for image_id in group
    }
    taught = policy.train + policy.val
    lesser = replace(policy, train=policy.train / taught, val=1 - policy.train / taught, test=0.0) if taught else policy
    placed: list[DatasetItem] = []
    for chosen, rule in ((strong, policy), (set(present) - strong, lesser)):
        part = Dataset(dataset.taxonomy, tuple(item for name, item in present.items() if name in chosen))
        own = [pair for pair in pairs if set(pair) <= chosen]
        placed += split(part, rule, previous, own).items if part.items else ()
    return Dataset(dataset.taxonomy, tuple(placed))


def _look_alikes(present: Mapping[str, DatasetItem], sources: Mapping[str, Path]) -> tuple[tuple[str, str], ...]:
    """Pairs of pictures that look alike; a picture of one colour is like every other such and counts for nothing."""
    try:
        pairs = near_duplicates({image_id: sources[image_id] for image_id in present})
    except (ImageError, OSError):
        return ()  # missing or changed: the freeze itself names it by its digest
    plain = {image_id for image_id in set(chain.from_iterable(pairs)) if _is_plain(sources[image_id])}
    return tuple(pair for pair in pairs if not plain & set(pair))


def _is_plain(path: Path) -> bool:
    with Image.open(path) as picture:
        return bool(ImageStat.Stat(picture.convert("L")).stddev[0] < _PLAIN)


def _is_strong(item: DatasetItem, least: TruthLevel) -> bool:
    return item.truth.level >= least or item.record.confirmation in _CONFIRMED


def _item(record: ImageRecord, answer: Annotation) -> DatasetItem:
    origin = (("annotation", answer.annotation_id), ("level", answer.level.name.lower()), ("reader", answer.author))
    return DatasetItem(record, answer, provenance=origin)


def _remember(folder: Path, version: DatasetVersion) -> None:
    names = history(folder)
    if names and names[-1] == version.root.name:
        return
    line = {"version": version.root.name, "digest": version.digest, "at": datetime.now(UTC).isoformat()}
    with (folder / HISTORY).open("ab") as stream:
        stream.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
