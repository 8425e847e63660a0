"""Label Studio's JSON export and import: every region type, several readers, drafts, predictions, skipped tasks.

What Label Studio has no words for travels in each task's `meta.dermloop`, which Label Studio stores and gives back. The
part of it that describes an annotation counts only while the annotation's result is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import orjson

from converters import manifest
from converters.annotation import TruthLevel
from converters.formats.contract import (
    ALL_FIELDS,
    Carries,
    Format,
    Picture,
    Piece,
    Placed,
    Shapes,
    WriteSettings,
)
from converters.formats.label_studio_read import META, TASKS, read, result_digest
from converters.label_studio import controls, general
from converters.label_studio.general import Reading

CONFIG = "labelling-config.xml"


def write(items: Iterable[Placed], settings: WriteSettings) -> Iterator[Piece | Picture]:
    """`tasks.json` to import into Label Studio, the labelling config it needs, and the images beside it."""
    seen: dict[tuple[str, str], dict[str, None]] = {}
    start = b"[\n"
    for placed in items:
        task = _task(placed, settings)
        for row in task["annotations"][0]["result"]:
            if row["type"] != "relation":
                known = seen.setdefault((row["from_name"], row["type"]), {})
                known.update(dict.fromkeys(_chosen(row)))
        yield Piece(TASKS, start + orjson.dumps(task))
        start = b",\n"
        if placed.image is not None:
            yield Picture(f"images/{placed.name}", placed)
    yield Piece(TASKS, b"[]\n" if start == b"[\n" else b"\n]\n")
    yield Piece(CONFIG, _config(seen, settings).encode())


def _task(placed: Placed, settings: WriteSettings) -> dict[str, Any]:
    record, said = placed.item.record, placed.item.truth
    reading = Reading(said.lesions, said.finding, said.answers, said.relations, said.redactions)
    result = general.encode(reading, record.size, settings.taxonomy)
    facts = manifest.encode_answer(replace(said, answers=(), redactions=(), relations=()))
    stored = manifest.encode_record(record)
    stored.pop("uri", None)
    meta: dict[str, Any] = {
        "record": stored,
        "truth": {"facts": {**facts, "image_id": ""}, "result_sha256": result_digest(result)},
    }
    if placed.item.split:
        meta["split"] = placed.item.split.value
    if placed.item.provenance:
        meta["provenance"] = dict(placed.item.provenance)
    image = f"{settings.prefix}images/{placed.name}" if placed.image is not None else record.uri
    annotation: dict[str, Any] = {"result": result, "ground_truth": said.level >= TruthLevel.CONSENSUS}
    if said.lead_time is not None:
        annotation["lead_time"] = said.lead_time
    return {"data": {controls.IMAGE: image}, "meta": {META: meta}, "annotations": [annotation]}


_LABELS = {f"{kind}labels": f"{kind.capitalize()}Labels" for kind in ("rectangle", "ellipse", "polygon", "brush")}
_LABELS["keypointlabels"] = "KeyPointLabels"
_FINDINGS = tuple(controls.FINDING_LABELS.values())
_OTHERS = {"choices": "Choices", "textarea": "TextArea", "rating": "Rating", "number": "Number", "taxonomy": "Taxonomy"}


def _chosen(row: Mapping[str, Any]) -> Iterator[str]:
    """What a config must offer for a row: its choices, or the names of its points."""
    value = row["value"]
    found = value.get("choices") or value.get("keypointlabels") or ()
    yield from (str(choice) for choice in found)


def _config(seen: Mapping[tuple[str, str], Iterable[str]], settings: WriteSettings) -> str:
    view = ET.Element("View")
    ET.SubElement(view, "Image", name=controls.IMAGE, value=f"${controls.IMAGE}")
    classes = [*(d.name for d in settings.taxonomy.diagnoses), *controls.OPEN_LABELS.values(), controls.REDACT]
    findings = {(controls.DIAGNOSIS, "rectanglelabels"): (), (controls.FINDING, "choices"): _FINDINGS}
    for (name, kind), values in sorted({**seen, **findings}.items(), key=lambda row: row[0]):
        parent = ET.SubElement(view, {**_LABELS, **_OTHERS}[kind], name=name, toName=controls.IMAGE)
        if kind in _LABELS:
            for value in dict.fromkeys((*classes, *values)):
                ET.SubElement(parent, "Label", value=value)
        elif kind in ("choices", "taxonomy"):
            for value in values or ("-",):
                ET.SubElement(parent, "Choice", value=value)
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"


def sniff(source: Path) -> bool:
    """Whether a file or folder holds Label Studio tasks; JSON-MIN is one, so that reading can say what to export."""
    path = source / TASKS if source.is_dir() else source
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return (
        (head[:1] in (b"[", b"{") and b'"data"' in head)
        or (b'"annotations": [{"id"' in head and b'"result"' in head)
        or (b'"annotator"' in head and b'"annotation_id"' in head)
    )


LABEL_STUDIO = Format(
    "label-studio",
    "Label Studio's JSON export: tasks with annotations, drafts and predictions",
    sniff,
    read,
    write,
    Carries(Shapes.ALL, ALL_FIELDS - {"probabilities"}, keypoints=True, addresses=True, whole_image=True),
)
