"""A conversion in shards: read and split once, its pictures made ready shard by shard, its labels written as one.

Every shard is an ordinary conversion of its images into a part of its own. The whole is an ordinary conversion of the
source that takes its splits from the plan and its pictures from the parts, so that names, numbers and the comparison
with what was read are those of a conversion in one piece.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from converters import taxonomy
from converters.convert import Progress, convert, items_of
from converters.dataset import DatasetItem, decode_line, encode_item
from converters.errors import DatasetError
from converters.formats.contract import Format, Picture, Piece, Placed, ReadResult, ReadSettings, Write, WriteSettings
from converters.formats.table import find
from converters.naming import Names
from converters.report import ConversionReport, Entry
from converters.request import Request, fingerprint
from dermloop.bulk import plan as plans
from dermloop.bulk.plan import Item, Plan, load_plan, make_plan, read_results, shard_of, write_results
from dermloop.bulk.shards import ShardReport, Tell
from dermloop.errors import BulkError

_SOURCE = "source.jsonl"
_ORDER = "conversion.json"
_CUT_OUT = "crops"
_BATCH = 32
_CURE = "Use `dermloop convert`."


@dataclass(slots=True)
class _Noted:
    """What went by while a shard was written: how many images, whether all, and which picture lies where."""

    images: int = 0
    ended: bool = False
    pictures: list[tuple[str, str]] = field(default_factory=list)


def plan(home: Path, request: Request, shards: int) -> Plan:
    """The plan of a conversion, named by its content: the one that is there already, or a new one.

    Items are read and dealt into splits here, once. Raises BulkError for a target that cannot be joined or holds
    something, ConversionError for a source that cannot be read.
    """
    _require_joinable(request)
    name = _name(request, shards)
    if (home / "bulk" / name / plans.FILE).is_file():
        return load_plan(home, name)
    (home / "bulk").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home / "bulk", prefix=".") as folder:
        files = {name: Path(folder) / name for name in (_SOURCE, _ORDER)}
        items = _spread(items_of(request), files[_SOURCE])
        files[_ORDER].write_bytes(orjson.dumps(_encoded(request), option=orjson.OPT_INDENT_2))
        return make_plan(home, name, "", items, shards, kind=plans.Kind.CONVERT, files=files)


def run_shard(plan: Plan, shard: int, tell: Tell) -> ShardReport:
    """The report on a shard whose pictures are ready in its part; again, it changes nothing.

    A shard that was killed goes on with the pictures that are missing.
    """
    items = list(plan.read_items(shard))
    if not plan.is_done(shard):
        part = _part(plan, shard)
        shutil.rmtree(part, ignore_errors=True)  # whole, but its worker died before it could say so
        found = _converted(plan, shard, items, tell)
        write_results(plan, shard, ({"name": name, "picture": path} for name, path in found.pictures))
    with plan.results_file(shard).open("rb") as stream:
        return ShardReport(shard, sum(1 for _ in stream), 0, len(items))


def join(
    plan: Plan, request: Request, progress: Progress, deliver: Callable[[], None] = lambda: None
) -> ConversionReport:
    """The report of a planned conversion as one, whose target is now in place and delivered; the run is gone then.

    Raises BulkError while shards are missing; LossError and DatasetError as a conversion in one piece does.
    """
    ready = {row["name"]: row["picture"] for row in read_results(plan)}
    splits = {item.record.image_id: item.split for item in _all(plan)} if request.split else {}

    def read(source: Path, settings: ReadSettings) -> ReadResult:
        assert request.reader.read is not None
        for found in request.reader.read(source, settings):
            known = splits.get(found.record.image_id) if isinstance(found, DatasetItem) else None
            yield replace(found, split=known) if isinstance(found, DatasetItem) and known else found

    def picture(image_id: str) -> Path | None:
        path = ready.get(image_id)
        return _part(plan, shard_of(image_id, plan.shards)) / path if path else None

    writer = replace(request.writer, write=_taking(_write(request), picture))
    report = convert(replace(request, reader=replace(request.reader, read=read), writer=writer, split=None), progress)
    deliver()
    shutil.rmtree(plan.root)
    return report


def _require_joinable(request: Request) -> None:
    target, writer = request.target, request.writer
    if writer.write is None or request.reader.read is None:
        name, verb = (writer.name, "written") if writer.write is None else (request.reader.name, "read")
        raise BulkError("format", name, f"a format that can be {verb}", "See `dermloop dataset formats`.")
    if writer.name == _CUT_OUT:
        raise BulkError("format", _CUT_OUT, "a format that keeps pictures whole, so that parts can be joined", _CURE)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BulkError(str(target), "something is there", "a new or empty folder", "Name another folder.")


def _name(request: Request, shards: int) -> str:
    facts = (fingerprint(request), str(request.target.absolute()), request.read.policy, request.read.image_key, shards)
    return f"convert-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}"


def _spread(found: Iterable[DatasetItem | Entry], path: Path) -> list[Item]:
    """Each image once, with the place of its line in a file of all of them."""
    places: dict[str, int] = {}
    with path.open("wb") as stream:
        for one in found:
            if isinstance(one, DatasetItem) and one.record.image_id not in places:
                places[one.record.image_id] = stream.tell()
                stream.write(encode_item(one))
    return [Item(image_id, str(place)) for image_id, place in places.items()]


def _all(plan: Plan) -> Iterator[DatasetItem]:
    with (plan.root / _SOURCE).open("rb") as stream:
        for number, line in enumerate(stream, 1):
            yield decode_line(line, f"{plan.root / _SOURCE}, line {number}")


def _some(path: Path, items: Iterable[Item]) -> Iterator[DatasetItem]:
    with path.open("rb") as stream:
        for place in sorted(int(item.address) for item in items):
            stream.seek(place)
            yield decode_line(stream.readline(), f"{path}, byte {place}")


def _encoded(request: Request) -> Mapping[str, Any]:
    return {
        "reader": request.reader.name,
        "writer": request.writer.name,
        "names": request.names,
        "prefix": request.write.prefix,
        "taxonomy": taxonomy.encode(request.write.taxonomy),
    }


def _shard_request(plan: Plan, shard: int, items: Iterable[Item]) -> Request:
    """The planned conversion of a shard's items into its part.

    Losses are counted when the parts are joined, as one conversion counts them.
    """
    row = orjson.loads((plan.root / _ORDER).read_bytes())
    known = taxonomy.decode(row["taxonomy"], str(plan.root / _ORDER))

    def read(source: Path, settings: ReadSettings) -> ReadResult:
        yield from _some(plan.root / _SOURCE, items)

    reader = Format(row["reader"], "items of a plan", lambda source: False, read)
    return Request(
        source=plan.items_file(shard),
        target=_part(plan, shard),
        reader=reader,
        writer=find(row["writer"]),
        read=ReadSettings(known),
        write=WriteSettings(known, prefix=row["prefix"]),
        names=Names(row["names"]),
        allow_loss=True,
        read_back=False,
    )


def _converted(plan: Plan, shard: int, items: list[Item], tell: Tell) -> _Noted:
    """What was written into the part of a shard; nothing where none of its images has a place in the target."""
    noted = _Noted()
    request = _shard_request(plan, shard, items)
    own = replace(request, writer=replace(request.writer, write=_noting(_write(request), noted)))

    def progress(stage: str, count: int) -> None:
        if count % _BATCH == 0 or count == len(items):
            tell(count, len(items))

    try:
        convert(own, progress)
    except DatasetError:
        if noted.images or not noted.ended:
            raise
    return noted


def _noting(write: Write, noted: _Noted) -> Write:
    """The same writer, which notes what goes by."""

    def counted(items: Iterable[Placed]) -> Iterator[Placed]:
        for placed in items:
            noted.images += 1
            yield placed

    def wrapped(items: Iterable[Placed], settings: WriteSettings) -> Iterator[Piece | Picture]:
        for piece in write(counted(items), settings):
            if isinstance(piece, Picture):
                noted.pictures.append((piece.placed.item.record.image_id, piece.path))
            yield piece
        noted.ended = True

    return wrapped


def _taking(write: Write, ready: Callable[[str], Path | None]) -> Write:
    """The same writer, which takes pictures that are ready as they are."""

    def wrapped(items: Iterable[Placed], settings: WriteSettings) -> Iterator[Piece | Picture]:
        for piece in write(items, settings):
            path = ready(piece.placed.item.record.image_id) if isinstance(piece, Picture) else None
            yield piece if path is None else Piece(piece.path, path.read_bytes())

    return wrapped


def _write(request: Request) -> Write:
    assert request.writer.write is not None
    return request.writer.write


def _part(plan: Plan, shard: int) -> Path:
    return plan.root / "parts" / f"{shard:05d}"
