"""Frozen dataset versions (`manifest.jsonl`, `images/`) as a source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converters import dataset
from converters.formats.contract import Format, ReadResult, ReadSettings


def read(source: Path, settings: ReadSettings) -> ReadResult:
    """The items of a frozen version; raises TaxonomyError where its classes are not those asked for."""
    version = dataset.load(source)
    version.dataset.taxonomy.require_prefix_of(settings.taxonomy)
    for item in version.dataset.items:
        yield replace(item, record=replace(item.record, uri=str(version.path(item))))


FROZEN = Format(
    "frozen",
    "a dataset version of dermloop",
    lambda source: (source / dataset.VERSION).is_file() and (source / dataset.MANIFEST).is_file(),
    read,
)
