"""What Label Studio stores of a prediction, whoever brings it: the `/predict` route or a push."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from converters.annotation import Lesion
from converters.geometry import Ellipse, ImageSize, PixelBox, Point, Polygon, RleMask
from converters.label_studio import results
from converters.label_studio.regions import encode_shape
from converters.raster import shape_to_mask
from converters.taxonomy import Taxonomy
from ml_backend.label_config import ChoiceControl, LabelConfig, Place, RegionControl, label_for, meanings
from ml_backend.pipeline import ImagePrediction
from ml_backend.reading import Reading

_Drawable: TypeAlias = PixelBox | Ellipse | Polygon | RleMask


def entry(
    prediction: ImagePrediction, taxonomy: Taxonomy, config: LabelConfig, link: str | None = None
) -> dict[str, Any]:
    """Label Studio's prediction: regions, the version, and a score that is lowest where the model is least sure.

    A link to the heat-map, where one is given, goes into each region's details, which Label Studio shows as plain text.
    """
    readings = prediction.readings or (None,) * len(prediction.lesions)
    rows = encode(prediction.lesions, readings, prediction.size, taxonomy, config)
    if link is not None:
        rows = [
            {**row, "meta": {"text": [f"Where the model looked: {link}"]}} if _is_region(row) else row for row in rows
        ]
    return {
        "result": rows,
        "score": 1 - prediction.uncertainty,
        "model_version": prediction.model_version,
    }


def encode(
    lesions: Sequence[Lesion],
    readings: Sequence[Reading | None],
    size: ImageSize,
    taxonomy: Taxonomy,
    config: LabelConfig,
) -> list[dict[str, Any]]:
    """Result rows in the config's own names: each lesion in every control that can draw it, then its answers.

    Picture-level answers follow the most certain lesion.
    """
    rows: list[dict[str, Any]] = []
    for number, (lesion, reading) in enumerate(zip(lesions, readings, strict=True)):
        named = replace(lesion, region_id=lesion.region_id or f"lesion-{number}")
        rows += _lesion_rows(named, meanings(lesion, reading, taxonomy), size, config)
    if lesions:
        best = max(range(len(lesions)), key=lambda number: lesions[number].score or 0.0)
        rows += _image_rows(lesions[best], meanings(lesions[best], readings[best], taxonomy), config)
    return rows


def _is_region(row: Mapping[str, Any]) -> bool:
    return str(row["type"]).endswith("labels")


def _lesion_rows(
    lesion: Lesion, meant: tuple[str, ...], size: ImageSize, config: LabelConfig
) -> Iterator[dict[str, Any]]:
    for order, control in enumerate(config.regions):
        label = label_for(control, meant)
        shape = _drawn(lesion, control, size)
        if label is None or shape is None:
            continue
        region_id = lesion.region_id if order == 0 else f"{lesion.region_id}-{control.name}"
        region = _region(lesion, str(region_id), control, shape, size, config.image)
        yield {**region, "value": {**region["value"], f"{control.kind}labels": [label]}}
        yield from _answers(lesion, meant, region, config)


def _region(
    lesion: Lesion, region_id: str, control: RegionControl, shape: _Drawable, size: ImageSize, image: str
) -> dict[str, Any]:
    _, value = encode_shape(shape, size)
    row = {
        "id": region_id,
        "from_name": control.name,
        "to_name": image,
        "type": f"{control.kind}labels",
        "origin": lesion.origin.value,
        "original_width": size.width,
        "original_height": size.height,
        "image_rotation": 0,
        "value": value,
    }
    return row if lesion.score is None else {**row, "score": lesion.score}


def _answers(
    lesion: Lesion, meant: tuple[str, ...], region: Mapping[str, Any], config: LabelConfig
) -> Iterator[dict[str, Any]]:
    kept = ("id", "to_name", "original_width", "original_height", "image_rotation")
    base = {key: region[key] for key in kept}
    for choice in config.choices:
        if choice.place is Place.REGION and (label := label_for(choice, meant)) is not None:
            yield {**base, **_chosen(choice, label, region["value"])}
    text = results.reading_text(lesion)
    for control in config.texts:
        if control.place is Place.REGION and text:
            value = {**region["value"], "text": [text]}
            yield {**base, "from_name": control.name, "type": "textarea", "value": value}


def _image_rows(lesion: Lesion, meant: tuple[str, ...], config: LabelConfig) -> Iterator[dict[str, Any]]:
    base = {"to_name": config.image}
    for choice in config.choices:
        if choice.place is Place.IMAGE and (label := label_for(choice, meant)) is not None:
            yield {**base, **_chosen(choice, label, {})}
    text = results.reading_text(lesion)
    for control in config.texts:
        if control.place is Place.IMAGE and text:
            yield {**base, "from_name": control.name, "type": "textarea", "value": {"text": [text]}}


def _chosen(choice: ChoiceControl, label: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"from_name": choice.name, "type": "choices", "value": {**value, "choices": [label]}}


def _drawn(lesion: Lesion, control: RegionControl, size: ImageSize) -> _Drawable | None:
    """The lesion as the control draws it, or None where it needs a mask that there is none of."""
    if control.kind == "rectangle":
        return lesion.box
    if control.kind == "ellipse":
        x, y = lesion.box.centre
        return Ellipse(x, y, lesion.box.width / 2, lesion.box.height / 2)
    if control.kind == "brush":
        return RleMask.from_array(shape_to_mask(lesion.shape, size)) if lesion.shape is not None else None
    return lesion.shape if isinstance(lesion.shape, Polygon) else Polygon(_corners(lesion.box))


def _corners(box: PixelBox) -> tuple[Point, ...]:
    return (box.x_min, box.y_min), (box.x_max, box.y_min), (box.x_max, box.y_max), (box.x_min, box.y_max)
