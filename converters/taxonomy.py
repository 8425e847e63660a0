"""The append-only class registry: every label, index, colour and weight row in the house is read from here."""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from converters.errors import TaxonomyError


class Severity(StrEnum):
    """Urgency of a finding; the declaration order is the class index."""

    LOW = "low"
    MODERATE = "moderate"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """Position on the scale, 0 to 2."""
        return tuple(Severity).index(self)


class Target(StrEnum):
    """What a classifier's output columns stand for."""

    DIAGNOSIS = "diagnosis"
    SEVERITY = "severity"
    MALIGNANCY = "malignancy"


MALIGNANCY_CLASSES = ("benign", "malignant")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One class: its permanent id, short code, English name, urgency and codes in public vocabularies."""

    id: int
    code: str
    name: str
    severity: Severity
    malignant: bool
    icd_o: str | None = None
    snomed: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taxonomy:
    """Diagnoses in id order; position equals id, and ids have no gaps.

    Raises TaxonomyError where an id is missing or used twice, or two diagnoses share a code, name or alias.
    """

    diagnoses: tuple[Diagnosis, ...]

    def __post_init__(self) -> None:
        ids = [diagnosis.id for diagnosis in self.diagnoses]
        if ids != list(range(len(ids))) or not ids:
            raise TaxonomyError("taxonomy ids", ids, "0, 1, 2, … in file order", "Append new classes at the end.")
        used = Counter(label for diagnosis in self.diagnoses for label in set(_labels(diagnosis)))
        if shared := sorted(label for label, count in used.items() if count > 1):
            raise TaxonomyError("taxonomy labels", shared, "each label for one diagnosis", "Rename one of them.")

    @property
    def codes(self) -> tuple[str, ...]:
        """Short codes in id order."""
        return tuple(diagnosis.code for diagnosis in self.diagnoses)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what fixes a class (id, code, severity, malignancy), in hexadecimal."""
        rows = [[d.id, d.code, d.severity.value, d.malignant] for d in self.diagnoses]
        return hashlib.sha256(orjson.dumps(rows)).hexdigest()

    @cached_property
    def _by_label(self) -> Mapping[str, Diagnosis]:
        return {label: diagnosis for diagnosis in self.diagnoses for label in _labels(diagnosis)}

    @cached_property
    def _by_spelling(self) -> Mapping[str, Diagnosis]:
        return {label: d for d in self.diagnoses for label in (d.code, d.name, *d.aliases)}

    @cached_property
    def words(self) -> Mapping[str, tuple[str, str]]:
        """Code and severity by code, name and alias as they are spelt in the registry; for the bulk of exact labels."""
        return {label: (d.code, d.severity.value) for label, d in self._by_spelling.items()}

    def find(self, label: str) -> Diagnosis | None:
        """The diagnosis that a code, name or alias stands for (case does not matter), or None."""
        return self._by_spelling.get(label) or self._by_label.get(_key(label))

    def resolve(self, label: str, item: str = "label") -> Diagnosis:
        """The diagnosis that a code, name or alias stands for; raises TaxonomyError naming `item` where none does."""
        if (found := self.find(label)) is None:
            raise TaxonomyError(
                item,
                label,
                f"one of {', '.join(self.codes)} or an alias",
                "Append the class to the taxonomy.",
            )
        return found

    def classes(self, target: Target) -> tuple[str, ...]:
        """Class names in index order for a classifier of the given target."""
        return {
            Target.DIAGNOSIS: self.codes,
            Target.SEVERITY: tuple(Severity),
            Target.MALIGNANCY: MALIGNANCY_CLASSES,
        }[target]

    def class_index(self, diagnosis: Diagnosis, target: Target) -> int:
        """Output column of a classifier of the given target that this diagnosis belongs to."""
        return {
            Target.DIAGNOSIS: diagnosis.id,
            Target.SEVERITY: diagnosis.severity.rank,
            Target.MALIGNANCY: int(diagnosis.malignant),
        }[target]

    def extended(self, additions: Iterable[Diagnosis]) -> Taxonomy:
        """This taxonomy with classes appended; raises TaxonomyError where an id would move."""
        return Taxonomy((*self.diagnoses, *additions))

    def require_prefix_of(self, other: Taxonomy) -> None:
        """Raises TaxonomyError unless `other` keeps every class of this taxonomy at its place."""
        if other.diagnoses[: len(self.diagnoses)] != self.diagnoses:
            raise TaxonomyError(
                "taxonomy",
                "; ".join(diff(self, other)),
                "an append-only successor",
                "Restore the changed classes.",
            )


def diff(old: Taxonomy, new: Taxonomy) -> tuple[str, ...]:
    """What changed between two taxonomies, a sentence each; empty where they are equal."""
    lines = []
    for before, after in zip(old.diagnoses, new.diagnoses, strict=False):
        lines += [
            f"{before.code} (id {before.id}): {field} {getattr(before, field)!r} → {getattr(after, field)!r}"
            for field in Diagnosis.__dataclass_fields__
            if getattr(before, field) != getattr(after, field)
        ]
    shared = min(len(old.diagnoses), len(new.diagnoses))
    lines += [f"{gone.code} (id {gone.id}): removed" for gone in old.diagnoses[shared:]]
    lines += [f"{added.code} (id {added.id}): added" for added in new.diagnoses[shared:]]
    return tuple(lines)


def read(path: Path | None = None) -> Taxonomy:
    """The taxonomy of a TOML file, or the one that ships with the package; raises TaxonomyError for a malformed one."""
    source = path or Path(__file__).with_name("taxonomy.toml")
    try:
        raw = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise TaxonomyError(str(source), str(error), "a readable TOML file", "Fix or name another file.") from error
    return decode(raw.get("diagnosis", []), str(source))


def decode(rows: Sequence[Mapping[str, Any]], item: str = "taxonomy") -> Taxonomy:
    """The taxonomy of plain rows (as in TOML or a bundle); raises TaxonomyError naming `item`."""
    try:
        return Taxonomy(tuple(_decode_row(row) for row in rows))
    except (KeyError, TypeError, ValueError) as error:
        raise TaxonomyError(
            item, str(error), "rows with id, code, name, severity, malignant", "Complete the row."
        ) from error


def encode(taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """Plain rows that `decode` reads back equal."""
    return [
        {
            "id": d.id,
            "code": d.code,
            "name": d.name,
            "severity": d.severity.value,
            "malignant": d.malignant,
            "icd_o": d.icd_o,
            "snomed": d.snomed,
            "aliases": list(d.aliases),
        }
        for d in taxonomy.diagnoses
    ]


def _decode_row(row: Mapping[str, Any]) -> Diagnosis:
    return Diagnosis(
        id=int(row["id"]),
        code=str(row["code"]),
        name=str(row["name"]),
        severity=Severity(row["severity"]),
        malignant=bool(row["malignant"]),
        icd_o=row.get("icd_o"),
        snomed=row.get("snomed"),
        aliases=tuple(row.get("aliases", ())),
    )


def _labels(diagnosis: Diagnosis) -> tuple[str, ...]:
    return tuple(_key(label) for label in (diagnosis.code, diagnosis.name, *diagnosis.aliases))


def _key(label: str) -> str:
    return " ".join(label.casefold().split())
