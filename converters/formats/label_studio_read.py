"""Label Studio's exports, read: one item for each task that has a truth; see `label_studio` for writing.

Most tasks hold one answer of plain boxes: those are read in one pass (`plain_item`), all others step by step.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from converters import manifest, truth
from converters.annotation import Annotation, Finding, ImageRecord, TruthLevel
from converters.dataset import DatasetItem, Split
from converters.errors import AmbiguousTruthError, AnnotationError, ConversionError
from converters.formats.contract import ReadResult, ReadSettings
from converters.formats.located import ADDRESS, address_id, measured, require_size
from converters.formats.metadata_csv import COLUMNS
from converters.formats.metadata_values import parse_cells
from converters.geometry import ImageSize
from converters.label_studio import controls, general
from converters.label_studio.addresses import ImageFolder, parse_address
from converters.label_studio.general import Reading
from converters.label_studio.plain import plain_boxes
from converters.label_studio.stream import read_elements
from converters.report import Entry, Kind, counted, refused
from converters.unchecked import made_from_checked

TASKS = "tasks.json"
META = "dermloop"
_FACTS = frozenset({"patient_id", "lesion_id", "age", "sex", "site", "skin_type", "confirmation", "device", "source"})
_IMAGE_NAME = re.compile(r"\.(jpe?g|png|webp|bmp|tiff?)($|\?)", re.IGNORECASE)
_PLAIN_FOLDER = re.compile(r"[a-z][a-z0-9-]*:/(?:/[\w.: -]+)+|/data/upload(?:/[\w. -]+)*", re.ASCII)
_PLAIN_NAME = re.compile(r"[\w-][\w. -]*", re.ASCII)
_plain_folder = lru_cache(1024)(_PLAIN_FOLDER.fullmatch)
_made_record = made_from_checked(ImageRecord)
_made_answer = made_from_checked(Annotation)
_made_item = made_from_checked(DatasetItem)


@dataclass(frozen=True, slots=True)
class Source:
    """One export and how it is read; `folder` holds the images where a folder of them was named."""

    path: Path
    settings: ReadSettings
    folder: ImageFolder | None


def read(source: Path, settings: ReadSettings) -> ReadResult:
    """One item for each task that has a truth under the policy; the rest as entries that say why not."""
    path = source / TASKS if source.is_dir() else source
    folder = ImageFolder.scan(settings.images) if settings.images else None
    reader = Source(path, settings, folder)
    file = path.name
    numbers: set[object] = set()
    for task in read_elements(path):
        number = task.get("id")
        if type(number) is int:
            if number in numbers:
                expected = "an id of its own for each task"
                error = AnnotationError(f"{file}, task {number}", number, expected, "Export the project again.")
                yield refused(error)
                continue
            numbers.add(number)
        if (plain := plain_item(task, reader)) is not None:
            yield plain
            continue
        name = f"{file}, task {number}"
        try:
            yield (item := any_item(task, name, reader))
            if isinstance(item, DatasetItem):
                yield from _left_behind(task, item.truth, name)
        except ConversionError as error:
            yield refused(error, name)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            expected = f"a task as Label Studio exports it ({type(error).__name__} {error})"
            yield refused(AnnotationError(name, str(task)[:80], expected, "Export the project again."))


def plain_item(task: Mapping[str, Any], source: Source) -> DatasetItem | None:
    """The item of a task of one submitted answer of plain boxes, its image known by address; None for any other."""
    settings, policy = source.settings, source.settings.policy
    try:
        data, (row,) = task["data"], task["annotations"]
        address = data[settings.image_key or _IMAGE_KEY]
        folder, _, name = address.rpartition("/")
        boxes = plain_boxes(row["result"], settings.taxonomy)
        if (
            boxes is None
            or _plain_folder(folder) is None
            or _PLAIN_NAME.fullmatch(name) is None
            or source.folder is not None
            or task.get("meta")
            or task.get("drafts")
            or (task.get("predictions") and policy.truth.minimum is TruthLevel.MODEL)
            or row.get("was_cancelled")
            or row.get("skipped")
            or (len(data) > 1 and _stated(tuple(data)))
        ):
            return None
        author, said, seconds = _author(row), row.get("updated_at") or row.get("created_at"), row.get("lead_time")
        moment = None if said is None else _moment_of(said)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    level = policy.level(author, bool(row.get("ground_truth")))
    if level < policy.truth.minimum or not (seconds is None or type(seconds) in _NUMBERS):
        return None
    lesions, size = boxes
    image_id, number = ADDRESS + address, str(row.get("id", ""))
    record = _made_record(image_id, address, size, name)
    answer = _made_answer(image_id, _LESIONS, lesions, level, author, number, moment, None, seconds)
    return _made_item(record, answer)


_IMAGE_KEY = controls.TaskField.IMAGE.value
_NUMBERS = (float, int)
_moment_of = datetime.fromisoformat
_LESIONS = Finding.LESIONS


def any_item(task: Mapping[str, Any], name: str, source: Source) -> DatasetItem | Entry:
    """The item of any task, or the entry that says why it has none; raises ConversionError where that is not clear."""
    data, meta = _mapping(task, "data", name), _meta(task)
    address = _address(data, source.settings, name)
    readings = list(_readings(task, name, source))
    says = any(_says_something(*found) for found in readings)
    if not says and not any(reading.size for _, reading, _ in readings):
        return Entry(Kind.SKIPPED, name, "truth", address, _why_not(task, says))
    record = _record(data, meta, address, _one_size(readings, name) or _draft_size(task), name, source)
    facts = "truth" in meta
    answers = [_answer(row, reading, kind, record.image_id, facts, name, source) for row, reading, kind in readings]
    try:
        found = truth.resolve(address, answers, source.settings.policy.truth)
    except AmbiguousTruthError as error:
        cure = "Adjudicate the image, or rank its readers in --truth-policy."
        raise AmbiguousTruthError(f"{name}, {address}", error.value, error.expected, cure) from error
    if found is None:
        return Entry(Kind.SKIPPED, name, "truth", address, _why_not(task, says))
    if not meta:
        return DatasetItem(record, found)
    split = Split(meta["split"]) if meta.get("split") in tuple(Split) else None
    provenance = tuple(sorted((str(k), str(v)) for k, v in (meta.get("provenance") or {}).items()))
    return DatasetItem(record, _with_facts(found, meta), split, provenance)


def _says_something(row: Mapping[str, Any], reading: Reading, kind: str) -> bool:
    return reading.finding is not Finding.NOT_LOOKED_AT and not _is_cancelled(row)


def _left_behind(task: Mapping[str, Any], taken: Annotation, name: str) -> Iterator[Entry]:
    """The entry of what others said of an image and what was not submitted; predictions are no answers."""
    rows = [row for row in task.get("annotations") or () if not _is_cancelled(row)]
    others = len(rows) - (taken.level is not TruthLevel.MODEL)
    drafts = len(task.get("drafts") or ())
    said = [counted(number, noun) for number, noun in ((others, "other answer"), (drafts, "draft")) if number]
    if said:
        yield Entry(Kind.EXPECTED, name, "left behind", " and ".join(said), "one answer is the truth of an image")


def _why_not(task: Mapping[str, Any], says: bool) -> str:
    if any(row.get("was_cancelled") for row in task.get("annotations") or ()):
        return "skipped by its reader"
    if task.get("drafts") and not task.get("annotations"):
        return "only drafts"
    if says:
        return "no answer is as high as the policy's minimum"
    return "submitted without a region or a finding" if task.get("annotations") else "nobody has looked at it"


def _readings(task: Mapping[str, Any], name: str, source: Source) -> Iterator[tuple[Mapping[str, Any], Reading, str]]:
    policy, taxonomy = source.settings.policy, source.settings.taxonomy
    kinds = _KINDS if policy.truth.minimum is TruthLevel.MODEL else _KINDS[:1]
    for kind in kinds:
        for row in _rows(task, kind, name):
            item = f"{name}, {kind.removesuffix('s')} {row.get('id')}"
            result = [] if _is_cancelled(row) else row.get("result") or []
            empty = policy.empty if kind == "annotations" else Finding.NOT_LOOKED_AT
            yield row, general.decode(result, None, taxonomy, item, empty), kind


_KINDS = ("annotations", "predictions")


def _is_cancelled(row: Mapping[str, Any]) -> bool:
    return bool(row.get("was_cancelled") or row.get("skipped"))


def _answer(
    row: Mapping[str, Any], reading: Reading, kind: str, image_id: str, facts: bool, name: str, source: Source
) -> Annotation:
    predicted = kind == "predictions"
    version = str(row.get("model_version") or "")
    author = version if predicted else _author(row)
    level = source.settings.policy.level(author, bool(row.get("ground_truth")))
    return Annotation(
        image_id=image_id,
        finding=Finding.NOT_LOOKED_AT if _is_cancelled(row) else reading.finding,
        lesions=reading.lesions,
        level=TruthLevel.MODEL if predicted else level,
        author=author,
        annotation_id=str(row.get("id", "")),
        created_at=_moment(row.get("updated_at") or row.get("created_at"), name),
        model_version=version or None if predicted else None,
        lead_time=row["lead_time"] if isinstance(row.get("lead_time"), int | float) else None,
        note=result_digest(row.get("result") or []) if facts else "",
        answers=reading.answers,
        redactions=reading.redactions,
        relations=reading.relations,
    )


def _with_facts(found: Annotation, meta: Mapping[str, Any]) -> Annotation:
    """The annotation with the facts that travelled in the task, as long as its result is what they were written for."""
    said = meta.get("truth")
    if not isinstance(said, dict) or said.get("result_sha256") != found.note or not found.note:
        return replace(found, note="")
    facts = manifest.decode_annotation(said["facts"])
    kept = {name: getattr(found, name) for name in ("lesions", "answers", "redactions", "relations", "finding")}
    return replace(facts, image_id=found.image_id, **kept)


def _record(
    data: Mapping[str, Any], meta: Mapping[str, Any], address: str, size: ImageSize | None, name: str, source: Source
) -> ImageRecord:
    parsed = parse_address(address, name)
    stored = meta.get("record")
    path = _find(source, address, name)
    if path is not None:
        image_id, found = measured(path, name)
        require_size(path, found, size, name)
        address, size = str(path), found
    else:
        image_id = address_id(address)
    if isinstance(stored, dict):
        record = manifest.decode_record({"image_id": image_id, "uri": address, "size": [1, 1], **stored})
        known = stored.get("size")
        size = size or (record.size if known else None)
        image_id = image_id if path is not None else record.image_id
        return replace(record, image_id=image_id, uri=address, size=_known(size, name))
    values, _ = parse_cells(_facts(data), source.settings.taxonomy)
    facts = {key: value for key, value in values.items() if key in _FACTS}
    return ImageRecord(image_id, address, _known(size, name), original_name=parsed.name, **facts)


def _find(source: Source, address: str, name: str) -> Path | None:
    if source.folder is not None:
        return source.folder.find(parse_address(address, name), name)
    if "://" in address or "?" in address or address.startswith("/data/"):
        return None
    path = source.path.parent / address
    return path if path.is_file() else None


def _known(size: ImageSize | None, name: str) -> ImageSize:
    if size is None:
        raise AnnotationError(f"{name}, image size", None, "a region that states it, or the image", "Name `--images`.")
    return size


def _one_size(readings: Sequence[tuple[Mapping[str, Any], Reading, str]], name: str) -> ImageSize | None:
    if len(readings) == 1:
        return readings[0][1].size
    found = {reading.size for _, reading, _ in readings if reading.size is not None}
    if len(found) > 1:
        shown = ", ".join(f"{size.width}×{size.height}" for size in sorted(found, key=lambda s: (s.width, s.height)))
        raise AnnotationError(f"{name}, image size", shown, "one size", "Annotate the same image again.")
    return found.pop() if found else None


def _draft_size(task: Mapping[str, Any]) -> ImageSize | None:
    """The image's size as a draft states it; what else an unfinished answer says is not looked at."""
    for row in task.get("drafts") or ():
        try:
            if size := general.stated_size(row.get("result") or [], "draft"):
                return size
        except (ConversionError, AttributeError, TypeError):
            continue
    return None


def _address(data: Mapping[str, Any], settings: ReadSettings, name: str) -> str:
    key = settings.image_key or _IMAGE_KEY
    if isinstance(data.get(key), str):
        return str(data[key])
    found = [value for value in data.values() if isinstance(value, str) and _IMAGE_NAME.search(value)]
    if settings.image_key or len(found) != 1:
        keys = ", ".join(map(str, data))
        raise AnnotationError(
            f"{name}, data", keys, f"an image address under `{key}`", "Name its key with --image-key."
        )
    return found[0]


def _facts(data: Mapping[str, Any]) -> dict[str, str]:
    stated = _stated(tuple(data))
    return {fact: str(data[key]).strip() for key, fact in stated if data[key] is not None}


@lru_cache(1024)
def _stated(keys: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Those of a task's keys that state a fact of the image, each with the fact."""
    known = ((key, COLUMNS.get(key.casefold(), "")) for key in keys)
    return tuple((key, fact) for key, fact in known if fact in _FACTS)


def _mapping(task: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    found = task.get(key)
    if not isinstance(found, dict):
        cure = "Export the project as JSON, not as JSON-MIN."
        raise AnnotationError(f"{name}, {key}", str(found)[:80], "an object", cure)
    return found


def _rows(task: Mapping[str, Any], key: str, name: str) -> list[Mapping[str, Any]]:
    found = task.get(key) or (task.get("completions") if key == "annotations" else None) or []
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise AnnotationError(f"{name}, {key}", str(found)[:80], "a list of objects", "Export as JSON, not JSON-MIN.")
    return found


def _meta(task: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = task.get("meta")
    found = meta.get(META) if isinstance(meta, dict) else None
    return found if isinstance(found, dict) else {}


def _author(row: Mapping[str, Any]) -> str:
    who = row.get("completed_by", row.get("user"))
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return "" if who is None else str(who)


def _moment(text: object, item: str) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(str(text))
    except ValueError as error:
        raise AnnotationError(f"{item}, time", text, "an ISO 8601 date", "Export the project again.") from error


def result_digest(result: object) -> str:
    """SHA-256 of an annotation's result, in hexadecimal: what travelled beside it counts only while it is unchanged."""
    return hashlib.sha256(orjson.dumps(result, option=orjson.OPT_SORT_KEYS)).hexdigest()
