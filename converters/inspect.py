"""What a dataset holds, in numbers, and what sets two datasets apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.annotation import Lesion
from converters.dataset import DatasetItem
from converters.duplicates import near_duplicates
from converters.report import Entry, counted, ledger, summary

_PAIRS = 5


@dataclass(frozen=True, slots=True)
class Inspection:
    """Counts of one dataset; unknown facts are counted under `unknown`."""

    images: int
    lesions: int
    without_bytes: int
    findings: Mapping[str, int]
    classes: Mapping[str, int]
    splits: Mapping[str, int]
    skin_types: Mapping[str, int]
    sexes: Mapping[str, int]
    confirmations: Mapping[str, int]
    patients: int
    synthetic: int
    sizes: Mapping[str, int]
    duplicates: tuple[tuple[str, str], ...]
    crossing: tuple[tuple[str, str], ...]
    left_out: Mapping[str, int]
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}

    def text(self) -> str:
        """The same for people, a line for each count."""
        lines = [
            f"{counted(self.images, 'image')}, {counted(self.lesions, 'lesion')}, "
            f"{counted(self.patients, 'patient')} known"
        ]
        for name in ("classes", "findings", "splits", "skin_types", "sexes", "confirmations", "sizes", "left_out"):
            counts = getattr(self, name)
            shown = ", ".join(f"{key} {count}" for key, count in counts.items() if count)
            lines.append(f"{name.replace('_', ' '):15} {shown or '-'}")
        lines += [f"  {reason}" for reason in self.reasons]
        across = f", {len(self.crossing)} of them across splits" if self.crossing else ""
        lines.append(f"near-duplicates {counted(len(self.duplicates), 'pair')}{across}")
        shown_pairs = dict.fromkeys((*self.crossing, *self.duplicates))
        lines += [f"  {one} and {other}" for one, other in list(shown_pairs)[:_PAIRS]]
        if len(shown_pairs) > _PAIRS:
            lines.append(f"  … {len(shown_pairs) - _PAIRS} more; --json has them all")
        if self.synthetic:
            lines.append(f"synthetic       {self.synthetic}")
        return "\n".join(lines)


def inspected(items: Sequence[DatasetItem], entries: Iterable[Entry] = ()) -> Inspection:
    """The counts of a dataset; near-duplicates are looked for among the images whose bytes are at hand."""
    found = list(entries)
    lesions = [lesion for item in items for lesion in item.truth.lesions]
    paths = {item.record.image_id: Path(item.record.uri) for item in items}
    pairs = near_duplicates({image_id: path for image_id, path in paths.items() if path.is_file()})
    splits = {item.record.image_id: item.split for item in items}
    names = {item.record.image_id: item.record.original_name or item.record.uri for item in items}
    return Inspection(
        images=len(items),
        lesions=len(lesions),
        without_bytes=sum(not path.is_file() for path in paths.values()),
        findings=_counts(item.truth.finding.value for item in items),
        classes=_counts(lesion.title for lesion in lesions),
        splits=_counts(item.split.value if item.split else "none" for item in items),
        skin_types=_counts(str(item.record.skin_type or "unknown") for item in items),
        sexes=_counts(item.record.sex or "unknown" for item in items),
        confirmations=_counts(item.record.confirmation.value for item in items),
        patients=len({(item.record.source, item.record.patient_id) for item in items if item.record.patient_id}),
        synthetic=sum(item.record.synthetic for item in items),
        sizes=dict(Counter(f"{i.record.size.width}×{i.record.size.height}" for i in items).most_common(8)),
        duplicates=_named(pairs, names),
        crossing=_named([(a, b) for a, b in pairs if splits[a] != splits[b]], names),
        left_out=summary(found),
        reasons=tuple(line.strip() for line in ledger(found, "`dermloop convert --report FILE` keeps them all")),
    )


def difference(one: Sequence[DatasetItem], other: Sequence[DatasetItem]) -> list[str]:
    """Sentences on images, splits and labels that two datasets do not share; empty where they are equal."""
    left, right = _keyed(one), _keyed(other)
    lines = [f"{name}: only in the first" for name in sorted(left.keys() - right.keys())]
    lines += [f"{name}: only in the second" for name in sorted(right.keys() - left.keys())]
    for name in sorted(left.keys() & right.keys()):
        before, after = left[name], right[name]
        if before.split != after.split:
            lines.append(f"{name}: split {before.split} → {after.split}")
        if before.truth.finding != after.truth.finding:
            lines.append(f"{name}: finding {before.truth.finding.value} → {after.truth.finding.value}")
        shown, now = Counter(map(_shown, before.truth.lesions)), Counter(map(_shown, after.truth.lesions))
        lines += [f"{name}: − {lesion}" for lesion in sorted((shown - now).elements())]
        lines += [f"{name}: + {lesion}" for lesion in sorted((now - shown).elements())]
    return lines


def _keyed(items: Sequence[DatasetItem]) -> dict[str, DatasetItem]:
    names = Counter(_key(item) for item in items)
    return {_key(item) if names[_key(item)] == 1 else item.record.uri: item for item in items}


def _key(item: DatasetItem) -> str:
    return Path(item.record.original_name or item.record.uri).stem


def _shown(lesion: Lesion) -> str:
    box = lesion.box
    edges = ", ".join(f"{edge:.1f}" for edge in box.edges)
    shape = "" if lesion.shape is None else f" {type(lesion.shape).__name__}"
    return f"{lesion.title} [{edges}]{shape}"


def _named(pairs: Iterable[tuple[str, str]], names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Pairs of image ids as names, sorted."""
    named = (sorted((names[one], names[other])) for one, other in pairs)
    return tuple(sorted((first, second) for first, second in named))


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value
