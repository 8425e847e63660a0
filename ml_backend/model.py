"""The model class as Label Studio's ML SDK wants it, under its 1.x and its 2.x contract."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converters.errors import ConversionError
from converters.geometry import ImageSize, PixelBox, Point
from converters.label_studio.controls import TaskField
from converters.label_studio.regions import SHAPES, decode_shape, envelope_of
from ml_backend import composition, jobs, predictions, protocol
from ml_backend.composition import Parts
from ml_backend.errors import FetchError, NoModelError, NotFoundError, ProtocolError, ServingError, UnreadableImageError
from ml_backend.label_config import LabelConfig, read_config
from ml_backend.ml_base import LabelStudioMLBase, accepted
from ml_backend.protocol import START_TRAINING, PredictRequest
from ml_backend.service import Analysis, Picture
from ml_backend.settings import read_settings

_MOST_BOXES = 256
_MOST_POINTS = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """The entries for Label Studio's `results`, one for each task, their version, and what was left out and why."""

    entries: list[Any]
    version: str | None
    left_out: list[dict[str, str]]


@functools.cache
def default_parts() -> Parts:
    """The parts for the environment's settings, made once in a process."""
    return composition.build(read_settings())


class DermloopModel(LabelStudioMLBase):  # type: ignore[misc]
    """Pre-annotates with the champion's pipeline; every prediction carries the bundle's version.

    Created by our own app with `parts`, or by label-studio-ml's server, in which case the environment says where
    models and images are.
    """

    TRAIN_EVENTS = (START_TRAINING,)

    def __init__(
        self,
        project_id: str | None = None,
        label_config: str | None = None,
        parts: Parts | None = None,
        **others: Any,
    ) -> None:
        given = {"project_id": project_id, "label_config": label_config, **others}
        self._config = label_config
        self._parts = parts or default_parts()
        super().__init__(**accepted(LabelStudioMLBase, given))

    def setup(self) -> None:
        """Tells the 2.x contract's cache which version serves, so that its `/setup` reports it."""
        keep = getattr(self, "set", None)
        if keep is not None and (version := self._parts.host.state.version):
            keep("model_version", version)

    def predict(self, tasks: Sequence[Any], context: Any = None, **_others: Any) -> list[Any]:
        """One entry for each task: a prediction, or an empty list where there can be none.

        With an interactive context the drawn boxes are read again and come back labelled; around a point that was
        set, the detector looks for the lesion.
        """
        request = protocol.decode_tasks(tasks, self._config, context)
        return self.answer(request).entries

    def answer(self, request: PredictRequest) -> Answer:
        """What Label Studio is told, with a reason for each task that has no prediction."""
        config = read_config(request.label_config, self._parts.taxonomy)
        try:
            if request.drawn is not None:
                return self._interactive(request, request.drawn, config)
            pictures = self._pictures(request, config)
            found = self._parts.service.analyse(pictures, self._parts.settings.predict_seconds)
            self._parts.metrics.analysed(found)
            return self._entries(found, request, config)
        except NoModelError as error:
            empty: Any = [] if request.drawn is None else {"result": []}
            return Answer([empty for _ in request.tasks], None, [_left_out(task.item, error) for task in request.tasks])

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, str]:
        """The id of the retraining that the event asks for; other events change nothing."""
        named = [arg for arg in args if isinstance(arg, str)]
        if kwargs.get("event", named[0] if named else None) != START_TRAINING:
            return {}
        return {"job": jobs.request_retrain(self._parts.queue, "asked for in Label Studio", "label-studio")}

    def _pictures(self, request: PredictRequest, config: LabelConfig) -> list[Picture]:
        read = self._parts.source.fetch_of
        return [Picture(task.item, functools.partial(read, task, config.field)) for task in request.tasks]

    def _entries(self, analysis: Analysis, request: PredictRequest, config: LabelConfig) -> Answer:
        entries: list[Any] = []
        for task, outcome in zip(request.tasks, analysis.outcomes, strict=True):
            link = None if task.get(TaskField.HEATMAP) else self._parts.link(task.get(config.field) or "")
            known = analysis.bundle.taxonomy
            found = outcome.prediction
            if task.get(TaskField.BLIND):
                entries.append({"result": [], "score": 0.0, "model_version": analysis.bundle.version})
                continue
            entries.append(predictions.entry(found, known, config, link) if found is not None else [])
        left_out = [_left_out(one.item, one.error) for one in analysis.outcomes if one.error is not None]
        return Answer(entries, analysis.bundle.version, left_out)

    def _interactive(self, request: PredictRequest, drawn: Sequence[Mapping[str, Any]], config: LabelConfig) -> Answer:
        pictures = self._pictures(request, config)
        if not pictures:
            return Answer([], None, [])
        shapes = [shape for row in drawn if (shape := _drawn(row)) is not None]
        boxes = [shape for shape in shapes if isinstance(shape, PixelBox)]
        points = [shape for shape in shapes if not isinstance(shape, PixelBox)]
        if len(boxes) > _MOST_BOXES or len(points) > _MOST_POINTS:
            expected = f"at most {_MOST_BOXES} regions and {_MOST_POINTS} points"
            raise ProtocolError("context", f"{len(boxes)} and {len(points)}", expected, "Send those just drawn.")
        try:
            read = self._parts.service.read(pictures[0], boxes, points)
        except (FetchError, ProtocolError, UnreadableImageError) as error:
            return Answer([{"result": []}], None, [_left_out(pictures[0].item, error)])
        named = [replace(lesion, region_id=uuid.uuid4().hex[:10]) for lesion in read.lesions]
        result = predictions.encode(named, read.readings, read.size, read.bundle.taxonomy, config)
        left_out = [_left_out(pictures[0].item, _nothing_at(point)) for point in read.empty]
        return Answer([{"result": result, "model_version": read.bundle.version}], read.bundle.version, left_out)


def _left_out(item: str, error: ServingError) -> dict[str, str]:
    return {"item": item, "reason": str(error)}


def _nothing_at(point: Point) -> ServingError:
    x, y = (round(edge) for edge in point)
    return NotFoundError(f"point ({x}, {y})", "nothing around it", "a lesion that the detector sees", "Draw its box.")


def _drawn(row: Mapping[str, Any]) -> PixelBox | Point | None:
    """The box around a region as Label Studio sends it, or the point that was set; None for what covers nothing."""
    value, kind = row.get("value"), str(row.get("type", "")).removesuffix("labels")
    if not isinstance(value, dict) or kind not in SHAPES:
        return None
    try:
        size = ImageSize(int(row["original_width"]), int(row["original_height"]))
        shape = decode_shape(kind, value, size, "drawn region")
        return shape if isinstance(shape, tuple) else envelope_of(shape)
    except (KeyError, TypeError, ValueError, OverflowError, ConversionError):
        return None
