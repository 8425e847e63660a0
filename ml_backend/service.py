"""Answers for many pictures: fetched and decoded ahead, predicted in batches of one version, failures kept apart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from converters.annotation import Lesion
from converters.geometry import ImageSize, PixelBox, Point
from ml_backend import images
from ml_backend.bundle import ModelBundle
from ml_backend.errors import InferenceError, OutOfTimeError, ServingError
from ml_backend.host import PipelineHost
from ml_backend.images import DecodedImage, DecodeLimits
from ml_backend.pipeline import ImagePrediction, Pipeline, PreparedImage
from ml_backend.reading import Reading
from telemetry.threads import CarryingThreads

_T = TypeVar("_T")
_READERS = 8
_DECODERS = 2
"""Many may wait for a host to answer; few unfold a picture at a time, which bounds memory."""

_BATCH = 8


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to analyse: how it is called in messages, and how its bytes are had."""

    item: str
    load: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture: a prediction or the reason why there is none, and its pixels if asked for."""

    item: str
    prediction: ImagePrediction | None = None
    error: ServingError | None = None
    image: DecodedImage | None = None

    def required(self) -> ImagePrediction:
        """The prediction; raises the reason why there is none."""
        if self.prediction is None:
            raise self.error or OutOfTimeError(self.item, "nothing", "a reading", "Try again.")
        return self.prediction


@dataclass(frozen=True, slots=True)
class Analysis:
    """Outcomes in the order of the pictures, all from one bundle."""

    bundle: ModelBundle
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class ReadBoxes:
    """What the classifier says of given boxes of one picture: lesions in original pixels, and their readings.

    `empty` are the points around which there was nothing to read.
    """

    bundle: ModelBundle
    size: ImageSize
    lesions: tuple[Lesion, ...]
    readings: tuple[Reading | None, ...]
    empty: tuple[Point, ...] = ()


class PredictionService:
    """Analyses pictures with the champion; safe to call from several threads, which take turns at the models."""

    def __init__(self, host: PipelineHost, limits: DecodeLimits = images.DEFAULT_LIMITS) -> None:
        self.host = host
        self._limits = limits
        self._turn = threading.Lock()
        self._readers = CarryingThreads(_READERS, thread_name_prefix="decode")
        self._decoding = threading.BoundedSemaphore(_DECODERS)
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="resize")

    def analyse(
        self,
        pictures: Sequence[Picture],
        seconds: float | None = None,
        pipeline: Pipeline | None = None,
        keep_pixels: bool = False,
    ) -> Analysis:
        """One outcome for each picture; those not reached within so many seconds carry an OutOfTimeError.

        All come from the champion, or from the pipeline given. Raises NoModelError where nothing has been promoted.
        """
        pipeline = pipeline or self.host.current()
        patience = _Patience(seconds)
        outcomes: list[Outcome] = []
        for batch, prepared in self._ahead(pipeline, pictures, patience):
            if patience.left() == 0:
                break
            outcomes += self._batch(pipeline, batch, prepared, keep_pixels)
        missed = [Outcome(one.item, error=patience.error(one)) for one in pictures[len(outcomes) :]]
        return Analysis(pipeline.bundle, (*outcomes, *missed))

    def read(self, picture: Picture, boxes: Sequence[PixelBox], points: Sequence[Point] = ()) -> ReadBoxes:
        """The classifier's reading of each box of one picture, and of what the detector finds around each point.

        Boxes and points are in original pixels. Raises ServingError where the picture cannot be had or nothing has
        been promoted.
        """
        pipeline = self.host.current()
        image = self._decoded(pipeline, picture)
        drawn = [(box.clipped(image.size), None, None) for box in boxes]
        with self._turn:
            pointed = pipeline.find(image, points)
            found = [*drawn, *((one.box, one.score, one.shape) for one in pointed if one is not None)]
            readings = pipeline.read([(image, box) for box, _, _ in found])
        pairs = zip(found, readings, strict=True)
        lesions = tuple(pipeline.lesion(box, score, its, shape) for (box, score, shape), its in pairs)
        empty = tuple(at for at, one in zip(points, pointed, strict=True) if one is None)
        return ReadBoxes(pipeline.bundle, image.size, lesions, tuple(readings), empty)

    def close(self) -> None:
        """Ends the reading threads."""
        self._readers.shutdown(cancel_futures=True)
        self._helper.shutdown(cancel_futures=True)

    def _ahead(
        self, pipeline: Pipeline, pictures: Sequence[Picture], patience: _Patience
    ) -> Iterator[tuple[Sequence[Picture], list[PreparedImage | ServingError]]]:
        """Batches of pictures, prepared; while one is predicted the next is on its way."""
        if len(pictures) == 1:
            yield pictures, [self._alone(pipeline, pictures[0], patience)]
            return
        batches = [pictures[start : start + _BATCH] for start in range(0, len(pictures), _BATCH)]
        waiting: list[list[Future[PreparedImage | ServingError]]] = []
        try:
            for number, batch in enumerate(batches):
                for upcoming in batches[number + len(waiting) : number + 2]:
                    waiting.append([self._readers.submit(self._attempt, pipeline, picture) for picture in upcoming])
                pairs = zip(batch, waiting.pop(0), strict=True)
                yield batch, [_awaited(picture, future, patience) for picture, future in pairs]
        finally:
            for future in (future for batch in waiting for future in batch):
                future.cancel()

    def _alone(self, pipeline: Pipeline, picture: Picture, patience: _Patience) -> PreparedImage | ServingError:
        """A single picture, prepared by this thread and a helper's together: nothing else is there to be done."""
        decoded = _awaited(picture, self._readers.submit(self._read, pipeline, picture), patience)
        if isinstance(decoded, ServingError):
            return decoded
        return pipeline.prepare(decoded, self._helper)

    def _read(self, pipeline: Pipeline, picture: Picture) -> DecodedImage | ServingError:
        try:
            return self._decoded(pipeline, picture)
        except ServingError as error:
            return error

    def _attempt(self, pipeline: Pipeline, picture: Picture) -> PreparedImage | ServingError:
        decoded = self._read(pipeline, picture)
        if isinstance(decoded, ServingError):
            return decoded
        with self._decoding:
            return pipeline.prepare(decoded)

    def _decoded(self, pipeline: Pipeline, picture: Picture) -> DecodedImage:
        content = picture.load()
        with self._decoding:
            return pipeline.decode(content, picture.item, self._limits)

    def _batch(
        self,
        pipeline: Pipeline,
        batch: Sequence[Picture],
        prepared: list[PreparedImage | ServingError],
        keep_pixels: bool,
    ) -> list[Outcome]:
        ready = [one for one in prepared if isinstance(one, PreparedImage)]
        with self._turn:
            found = iter(_predicted(pipeline, ready))
        return [
            _outcome(picture, one, one if isinstance(one, ServingError) else next(found), keep_pixels)
            for picture, one in zip(batch, prepared, strict=True)
        ]


class _Patience:
    """How long a request may still take."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def error(self, picture: Picture) -> OutOfTimeError:
        """Why a picture has no prediction."""
        cure = "Send fewer at once, or run `dermloop preannotate`."
        return OutOfTimeError(picture.item, "not reached", f"an answer in {self._seconds} s", cure)


def _awaited(picture: Picture, future: Future[_T | ServingError], patience: _Patience) -> _T | ServingError:
    try:
        return future.result(patience.left())
    except TimeoutError:
        return patience.error(picture)


def _predicted(pipeline: Pipeline, ready: Sequence[PreparedImage]) -> list[ImagePrediction | ServingError]:
    """Predictions of a batch; where a graph fails on it, each picture is tried by itself."""
    try:
        return list(pipeline.predict_prepared(ready))
    except InferenceError as error:
        if len(ready) == 1:
            return [error]
        return [one for picture in ready for one in _predicted(pipeline, [picture])]


def _outcome(
    picture: Picture, prepared: PreparedImage | ServingError, found: ImagePrediction | ServingError, keep: bool
) -> Outcome:
    if isinstance(found, ServingError):
        return Outcome(picture.item, error=found)
    return Outcome(picture.item, found, image=prepared.image if keep and isinstance(prepared, PreparedImage) else None)
