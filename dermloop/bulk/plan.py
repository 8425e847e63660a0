"""The plan of a run: which picture lies in which shard, what is to be done with it, and which shards are done.

A picture's shard follows from a digest of its name alone, so that the same source gives the same shards on any
machine. A plan lies below `<home>/bulk/<name>/`: `plan.json`, `items/<shard>.jsonl`, `results/<shard>.jsonl`.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from converters.whole import whole_file, whole_folder
from dermloop.errors import BulkError

FILE = "plan.json"
_CONFIG = "label_config.xml"
_ERROR = b'"error":'
MOST_SHARDS = 10_000


class Kind(StrEnum):
    """What is done with the pictures of a run."""

    READ = "read"
    CONVERT = "convert"
    EVALUATE = "evaluate"


@dataclass(frozen=True, slots=True)
class Item:
    """A picture of a run: its name, unique in it, where its bytes are, and its task in Label Studio, if it has one."""

    name: str
    address: str
    task: int | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """A project of Label Studio whose tasks are read: its number and its labelling config."""

    id: int
    label_config: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A run as it was planned; `root` is its folder, `version` the model that reads every shard, if one does."""

    root: Path
    name: str
    version: str
    shards: int
    items: int
    project: int | None = None
    kind: Kind = Kind.READ

    def items_file(self, shard: int) -> Path:
        """Where the items of a shard are listed."""
        return self.root / "items" / f"{shard:05d}.jsonl"

    def results_file(self, shard: int) -> Path:
        """Where the readings of a shard lie; there once all of it is done."""
        return self.root / "results" / f"{shard:05d}.jsonl"

    def label_config(self) -> str:
        """The labelling config of the project whose tasks are read; empty for pictures without tasks."""
        path = self.root / _CONFIG
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def is_done(self, shard: int) -> bool:
        """Whether nothing is left to do in a shard."""
        return self.results_file(shard).is_file()

    @contextmanager
    def held(self, shard: int) -> Iterator[None]:
        """Holds a shard, waiting while another worker does: two at a time would write into one file.

        A worker that dies lets go of it.
        """
        path = self.root / "held" / f"{shard:05d}"
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def forget_failed(self) -> int:
        """How many shards are to be read again, because a picture in them could not be read."""
        again = [shard for shard in range(self.shards) if self.is_done(shard) and _has_failed(self.results_file(shard))]
        for shard in again:
            self.results_file(shard).unlink()
        return len(again)

    def pending(self) -> tuple[int, ...]:
        """The shards that are not done, in order."""
        return tuple(shard for shard in range(self.shards) if not self.is_done(shard))

    def read_items(self, shard: int) -> Iterator[Item]:
        """The items of a shard, by name."""
        with self.items_file(shard).open("rb") as stream:
            for line in stream:
                yield Item(**orjson.loads(line))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: shards, pictures read, and pictures that could not be read."""

    shards: int
    done: int
    read: int
    failed: int


def shard_of(name: str, shards: int) -> int:
    """The shard of a picture, from 0; the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % shards


def make_plan(
    home: Path,
    name: str,
    version: str,
    items: Iterable[Item],
    shards: int,
    project: Project | None = None,
    kind: Kind = Kind.READ,
    files: Mapping[str, Path] = MappingProxyType({}),
) -> Plan:
    """A new plan on disk, whole or not at all; raises BulkError for a taken name, no items, or an item named twice.

    `files` are moved into the run's folder under their names.
    """
    _require_name(name)
    root = home / "bulk" / name
    if root.exists():
        raise BulkError(f"run {name}", "there already", "a new name", "Go on with it, or choose another name.")
    if not 1 <= shards <= MOST_SHARDS:
        raise BulkError("shards", shards, f"1 to {MOST_SHARDS}", "Choose fewer, larger shards.")
    with whole_folder(root) as draft:
        (draft / "items").mkdir()
        count = _write_items(draft / "items", items, shards)
        if count == 0:
            raise BulkError(f"run {name}", "no pictures", "a source with JPEG or PNG pictures", "Name another source.")
        number = project.id if project else None
        if project is not None:
            (draft / _CONFIG).write_text(project.label_config, encoding="utf-8")
        for own, file in files.items():
            file.replace(draft / own)
        row = {"name": name, "version": version, "shards": shards, "items": count, "project": number, "kind": kind}
        (draft / FILE).write_bytes(orjson.dumps(row, option=orjson.OPT_INDENT_2))
    return load_plan(home, name)


def load_plan(home: Path, name: str) -> Plan:
    """The plan of a run; raises BulkError where there is none."""
    root = home / "bulk" / name
    try:
        row = orjson.loads((root / FILE).read_bytes())
        return Plan(root, **{**row, "kind": Kind(row.get("kind", Kind.READ))})
    except (OSError, orjson.JSONDecodeError, TypeError, ValueError, AttributeError) as error:
        known = ", ".join(sorted(path.parent.name for path in root.parent.glob(f"*/{FILE}"))) or "none yet"
        raise BulkError(f"run {name}", type(error).__name__, f"one of: {known}", "Plan it first.") from error


def write_results(plan: Plan, shard: int, rows: Iterable[Mapping[str, object]]) -> None:
    """Marks a shard as done: a line for each picture, all of them or none."""
    with whole_file(plan.results_file(shard)) as draft, draft.open("wb") as stream:
        stream.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def read_results(plan: Plan) -> Iterator[dict[str, Any]]:
    """The lines of all shards; raises BulkError while some are not done."""
    if pending := plan.pending():
        raise BulkError(f"run {plan.name}", f"{len(pending)} shards to do", "none", "Run the same command again.")
    for shard in range(plan.shards):
        with plan.results_file(shard).open("rb") as stream:
            yield from map(orjson.loads, stream)


def progress(plan: Plan) -> Progress:
    """How far a run is, counted from what lies on disk."""
    done, read, failed = 0, 0, 0
    for shard in range(plan.shards):
        if plan.is_done(shard):
            done += 1
            with plan.results_file(shard).open("rb") as stream:
                for line in stream:
                    failed += _ERROR in line
                    read += _ERROR not in line
    return Progress(plan.shards, done, read, failed)


def _has_failed(path: Path) -> bool:
    with path.open("rb") as stream:
        return any(_ERROR in line for line in stream)


def _write_items(folder: Path, items: Iterable[Item], shards: int) -> int:
    """Spreads items over the shards' files, then puts each in order; the number of items."""
    count = 0
    chunk: dict[int, list[bytes]] = {}
    for count, item in enumerate(items, start=1):
        line = orjson.dumps(asdict(item), option=orjson.OPT_APPEND_NEWLINE)
        chunk.setdefault(shard_of(item.name, shards), []).append(line)
        if count % 50_000 == 0:
            _append(folder, chunk)
            chunk = {}
    _append(folder, chunk)
    for shard in range(shards):
        _put_in_order(folder / f"{shard:05d}.jsonl")
    return count


def _append(folder: Path, chunk: dict[int, list[bytes]]) -> None:
    for shard, lines in chunk.items():
        with (folder / f"{shard:05d}.jsonl").open("ab") as stream:
            stream.writelines(lines)


def _put_in_order(path: Path) -> None:
    if not path.exists():
        path.touch()
        return
    rows = sorted((orjson.loads(line)["name"], line) for line in path.read_bytes().splitlines(keepends=True))
    for (before, _), (name, _) in pairwise(rows):
        if before == name:
            raise BulkError(f"picture {name}", "twice in the source", "each picture once", "Remove one of them.")
    path.write_bytes(b"".join(line for _, line in rows))


def _require_name(name: str) -> None:
    if not name or not all(part.isalnum() for part in name.replace("_", "-").split("-")):
        raise BulkError("name", name, "letters, digits and hyphens", "Choose another name.")
