"""The table beside a folder of masks or crops that says which file is whose, written and read line by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from converters.errors import DatasetError


def table_line(cells: Iterable[object]) -> bytes:
    """One line of a CSV table in UTF-8; an empty cell for None."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode()


def read_table(path: Path, columns: Sequence[str]) -> dict[str, list[Mapping[str, str]]]:
    """The rows of a table by their image, in the table's order.

    Raises DatasetError naming file and line where it is no table of these columns, or names no image.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(str(path), str(error), "a readable table", "Name the exported folder.") from error
    grouped: dict[str, list[Mapping[str, str]]] = {}
    for number, row in enumerate(rows, 2):
        if set(row) != set(columns) or any(not isinstance(value, str) for value in row.values()) or not row["image"]:
            raise DatasetError(f"{path}, line {number}", str(row)[:80], f"columns {','.join(columns)}", "Restore it.")
        grouped.setdefault(row["image"], []).append(row)
    return grouped
