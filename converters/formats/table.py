"""The one table of formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from converters.errors import DatasetError
from converters.formats.coco import COCO
from converters.formats.contract import Format
from converters.formats.crops import CLASSIFY, CROPS
from converters.formats.csv_table import CSV
from converters.formats.frozen import FROZEN
from converters.formats.ground_truth import GROUND_TRUTH_FORMATS
from converters.formats.label_studio import LABEL_STUDIO
from converters.formats.masks import INDEXED, MASKS
from converters.formats.published import PUBLISHED_FORMATS
from converters.formats.voc import VOC
from converters.formats.yolo import YOLO_FORMATS

FORMATS: Mapping[str, Format] = {
    entry.name: entry
    for entry in (
        FROZEN,
        LABEL_STUDIO,
        *YOLO_FORMATS,
        COCO,
        VOC,
        MASKS,
        INDEXED,
        *GROUND_TRUTH_FORMATS,
        CROPS,
        CLASSIFY,
        *PUBLISHED_FORMATS,
        CSV,
    )
}
"""Every format by the name that `--from` and `--to` take; sniffing asks them in this order."""


def find(name: str) -> Format:
    """The format of a name; raises DatasetError listing the known ones."""
    if name not in FORMATS:
        raise DatasetError("format", name, f"one of {', '.join(FORMATS)}", "Choose one of them.")
    return FORMATS[name]


def sniffed(source: Path) -> Format:
    """The format of a file or folder; raises DatasetError where it does not exist or looks like none."""
    if not source.exists():
        raise DatasetError(str(source), "nothing there", "a file or folder", "Check the path.")
    for entry in FORMATS.values():
        if entry.read is not None and entry.sniff(source):
            return entry
    readable = ", ".join(name for name, entry in FORMATS.items() if entry.read)
    raise DatasetError(str(source), "an unknown format", f"one of {readable}", "Name it with --from.")
