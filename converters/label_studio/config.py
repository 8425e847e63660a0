"""The labelling config of each tier, generated from the taxonomy: colours by severity, hotkeys, short instructions."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from converters.label_studio import controls
from converters.label_studio.controls import TaskField, Tier, Verdict
from converters.taxonomy import Diagnosis, Severity, Taxonomy

SEVERITY_COLOURS = {Severity.HIGH: "#c2185b", Severity.MODERATE: "#e68a00", Severity.LOW: "#1e7fc2"}
_HOTKEYS = "123456789"
_OPEN_COLOUR = "#6b7280"
_OPEN_HOTKEYS = {"high": "q", "moderate": "w", "low": "e", None: "r"}
_REDACT_HOTKEY = "k"
_FINDING_HOTKEYS = {"lesions": "l", "lesion-free": "f", "ungradable": "u"}
_VERDICT_HOTKEYS = {
    Verdict.ACCEPT: "a",
    Verdict.APPROVE: "a",
    Verdict.CORRECT: "c",
    Verdict.SEND_BACK: "b",
    Verdict.EXCLUDE: "x",
}
_TITLES = {
    Tier.TECHNICIAN: "Outline every lesion and name it",
    Tier.DERMATOLOGIST: "Check the technician's reading",
    Tier.QA: "Approve, adjudicate, send back or exclude",
}
_DISCLAIMER = "Supports annotation and research. No diagnosis."
_HEATMAP = (
    '<details class="dl-heat"><summary>Where the model looked</summary>'
    f'<a href="${TaskField.HEATMAP}" target="_blank" rel="noopener">'
    f'<img src="${TaskField.HEATMAP}" alt="heat-map" loading="lazy"/></a></details>'
)
"""Unfolds in the page; the picture is fetched then. The style hides it on tasks without a link."""


def labelling_config(taxonomy: Taxonomy, tier: Tier, masks: bool = False) -> str:
    """Label Studio's XML for one tier; label values are the taxonomy's names, so results resolve through it.

    With `masks` the reader may also paint each lesion with a brush of the same labels.
    """
    view = ET.Element("View", className="dl")
    ET.SubElement(view, "Style").text = _STYLE
    top = ET.SubElement(view, "View", className="dl-top")
    ET.SubElement(top, "Header", value=_TITLES[tier], size="4")
    note = ET.SubElement(top, "View", className="dl-note")
    ET.SubElement(note, "Text", name=TaskField.NOTE, value=f"${TaskField.NOTE}", granularity="paragraph")
    desk = ET.SubElement(view, "View", className="dl-desk")
    left = ET.SubElement(desk, "View", className="dl-image")
    _add_image(left)
    ET.SubElement(left, "Markdown", value=_HEATMAP)
    side = ET.SubElement(desk, "View", className="dl-side")
    if tier in controls.VERDICTS:
        _add_verdict(side, controls.VERDICTS[tier])
    _add_labels(side, taxonomy)
    if masks:
        _add_brush(side, taxonomy)
    _add_finding(side)
    ET.SubElement(side, "Text", name="disclaimer", value=_DISCLAIMER)
    ET.indent(view)
    return ET.tostring(view, encoding="unicode")


def _add_image(parent: ET.Element) -> None:
    ET.SubElement(
        parent,
        "Image",
        name=controls.IMAGE,
        value=f"${TaskField.IMAGE}",
        zoom="true",
        zoomControl="true",
        defaultZoom="fit",
        maxHeight="calc(100vh - 250px)",
        brightnessControl="true",
        contrastControl="true",
        rotateControl="false",
    )
    ET.SubElement(
        parent,
        "TextArea",
        name=controls.READING,
        toName=controls.IMAGE,
        perRegion="true",
        editable="false",
        displayMode="region-list",
        maxSubmissions="1",
        placeholder="Note on this lesion",
    )


def _add_labels(parent: ET.Element, taxonomy: Taxonomy) -> None:
    ET.SubElement(parent, "Header", value="Each lesion", size="5")
    labels = ET.SubElement(
        parent,
        "RectangleLabels",
        name=controls.DIAGNOSIS,
        toName=controls.IMAGE,
        strokeWidth="3",
        opacity="0.12",
        smart="true",
    )
    for severity in (*reversed(Severity), None):
        for diagnosis in taxonomy.diagnoses:
            if diagnosis.severity is severity:
                _add_label(labels, diagnosis)
        _add_open_label(labels, severity)
    hint = "burned out of every copy that leaves the house"
    ET.SubElement(labels, "Label", value=controls.REDACT, background="#111111", hotkey=_REDACT_HOTKEY, hint=hint)


def _add_brush(parent: ET.Element, taxonomy: Taxonomy) -> None:
    ET.SubElement(parent, "Header", value="Its outline, painted", size="5")
    brush = ET.SubElement(parent, "BrushLabels", name=controls.MASK, toName=controls.IMAGE, opacity="0.4")
    for diagnosis in taxonomy.diagnoses:
        colour = SEVERITY_COLOURS[diagnosis.severity]
        ET.SubElement(brush, "Label", value=diagnosis.name, background=colour, hint=diagnosis.code)
    for severity, label in controls.OPEN_LABELS.items():
        colour = SEVERITY_COLOURS[Severity(severity)] if severity else _OPEN_COLOUR
        ET.SubElement(brush, "Label", value=label, background=colour)


def _add_label(parent: ET.Element, diagnosis: Diagnosis) -> None:
    colour = SEVERITY_COLOURS[diagnosis.severity]
    label = ET.SubElement(parent, "Label", value=diagnosis.name, background=colour, hint=diagnosis.code)
    if diagnosis.id < len(_HOTKEYS):
        label.set("hotkey", _HOTKEYS[diagnosis.id])


def _add_open_label(parent: ET.Element, severity: Severity | None) -> None:
    ET.SubElement(
        parent,
        "Label",
        value=controls.OPEN_LABELS[severity],
        background=SEVERITY_COLOURS[severity] if severity else _OPEN_COLOUR,
        hotkey=_OPEN_HOTKEYS[severity],
    )


def _add_verdict(parent: ET.Element, verdicts: tuple[Verdict, ...]) -> None:
    ET.SubElement(parent, "Header", value="Your verdict", size="5")
    box = ET.SubElement(
        parent,
        "Choices",
        name=controls.VERDICT,
        toName=controls.IMAGE,
        choice="single-radio",
        layout="inline",
        required="true",
        requiredMessage="Choose a verdict before you submit.",
    )
    for verdict in verdicts:
        ET.SubElement(box, "Choice", value=verdict, hotkey=_VERDICT_HOTKEYS[verdict])
    reason = ET.SubElement(
        parent,
        "View",
        visibleWhen="choice-selected",
        whenTagName=controls.VERDICT,
        whenChoiceValue=",".join(v for v in verdicts if v in (Verdict.SEND_BACK, Verdict.EXCLUDE)),
    )
    ET.SubElement(
        reason,
        "TextArea",
        name=controls.REASON,
        toName=controls.IMAGE,
        rows="1",
        maxSubmissions="1",
        required="true",
        requiredMessage="Say why, so that the reader can act on it.",
        placeholder="Why? One sentence, then Enter.",
    )


def _add_finding(parent: ET.Element) -> None:
    ET.SubElement(parent, "Header", value="The whole image", size="5")
    finding = ET.SubElement(
        parent, "Choices", name=controls.FINDING, toName=controls.IMAGE, choice="single-radio", layout="inline"
    )
    for value, label in controls.FINDING_LABELS.items():
        ET.SubElement(finding, "Choice", value=label, hotkey=_FINDING_HOTKEYS[value])
    ET.SubElement(parent, "Header", value="Image quality", size="5")
    quality = ET.SubElement(
        parent, "Choices", name=controls.QUALITY, toName=controls.IMAGE, choice="single-radio", layout="inline"
    )
    for label in controls.QUALITY_LABELS:
        ET.SubElement(quality, "Choice", value=label)


_STYLE = """
.dl-top { display: flex; gap: 16px; align-items: center; padding: 0 0 8px; }
.dl-note { flex: 1; max-height: 84px; overflow-y: auto; padding: 4px 12px; border-left: 4px solid #e68a00; }
.dl-note { background: rgba(230, 138, 0, 0.12); font-size: 13px; line-height: 1.35; }
.dl-desk { display: flex; gap: 16px; align-items: flex-start; }
.dl-image { flex: 1 1 auto; min-width: 0; }
.dl-heat { margin-top: 8px; font-size: 13px; }
.dl-heat summary { cursor: pointer; }
.dl-heat img { width: 100%; max-height: calc(100vh - 250px); margin-top: 6px; }
.dl-heat img { object-fit: contain; object-position: left; }
.dl-heat:not(:has(a[href^="http"])) { display: none; }
.dl-side { flex: 0 0 290px; font-size: 13px; }
.dl-side h5 { margin: 10px 0 2px; font-size: 15px; }
"""
