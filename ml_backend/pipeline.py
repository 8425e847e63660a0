"""The two-stage pipeline: find lesions, read each one; the same object labels, serves and is evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from converters.annotation import Lesion, Origin
from converters.geometry import ImageSize, PixelBox, Point, Polygon
from converters.taxonomy import Target
from ml_backend import images, masks, memory, preprocessing, reading
from ml_backend.bundle import ClassifierSpec, DetectorSpec, DetectorTask, ModelBundle
from ml_backend.images import DecodedImage, DecodeLimits
from ml_backend.onnx_session import Graph
from ml_backend.preprocessing import Candidates, Floats, Letterbox, Pixels
from ml_backend.reading import Reading

_T = TypeVar("_T")
DETECTOR_BATCH = 4
CLASSIFIER_BATCH = 4
_CANDIDATE_FLOOR = 0.05
_POINTED_FLOOR = 0.01
_POINTED_DETECTIONS = 100


@dataclass(frozen=True, slots=True)
class ImagePrediction:
    """What the pipeline says of one picture.

    `lesions` are in original pixels, best first, with `origin` prediction; `readings` belong to them in the same order
    (None without a classifier). `uncertainty` in [0, 1] orders work: near 0 is a clear finding or a clearly empty
    picture, near 1 a finding on the brink or an even differential.
    """

    size: ImageSize
    lesions: tuple[Lesion, ...]
    uncertainty: float
    model_version: str
    readings: tuple[Reading | None, ...] = field(default=())


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """A decoded picture, and how the detector sees it: its square and its place therein (None without a detector)."""

    image: DecodedImage
    square: Pixels | None = None
    place: Letterbox | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """What the detector found: a box in original pixels, its score, and its outline where there are masks."""

    box: PixelBox
    score: float
    shape: Polygon | None = None

    def shifted(self, x: float, y: float) -> Detection:
        """The same, moved to the right and down by so many pixels."""
        box = PixelBox(self.box.x_min + x, self.box.y_min + y, self.box.x_max + x, self.box.y_max + y)
        outline = tuple((px + x, py + y) for px, py in self.shape.outline) if self.shape else None
        return Detection(box, self.score, Polygon(outline) if outline else None)


class Pipeline:
    """Both graphs of a bundle, opened; `predict` may be called from several threads."""

    def __init__(self, bundle: ModelBundle, detector: Graph | None, classifier: Graph | None) -> None:
        self.bundle = bundle
        self._detector = detector
        self._classifier = classifier

    @classmethod
    def open(cls, bundle: ModelBundle, threads: int | None = None) -> Pipeline:
        """The pipeline of a loaded bundle on so many threads (all processors by default).

        Raises BundleError where onnxruntime cannot load a graph.
        """
        detector = Graph(bundle.detector_path, threads, side_by_side=True) if bundle.detector else None
        classifier = Graph(bundle.classifier_path, threads) if bundle.classifier else None
        memory.give_back()
        return cls(bundle, detector, classifier)

    def decode(self, content: bytes, item: str, limits: DecodeLimits = images.DEFAULT_LIMITS) -> DecodedImage:
        """The picture of a file at the scale that this bundle works at; raises UnreadableImageError naming `item`."""
        return images.decode(content, item, replace(limits, working_side=self.bundle.working_side))

    def prepare(self, image: DecodedImage, helper: Executor | None = None) -> PreparedImage:
        """The picture as the detector sees it; may run in another thread while the graphs are busy.

        A helper with a thread to spare halves the time.
        """
        if self.bundle.detector is None:
            return PreparedImage(image)
        return PreparedImage(image, *preprocessing.letterbox(image.pixels, self.bundle.detector.input_size, helper))

    def predict(self, pictures: Sequence[DecodedImage]) -> list[ImagePrediction]:
        """One prediction for each picture, in order; both stages run in batches across pictures."""
        return self.predict_prepared([self.prepare(picture) for picture in pictures])

    def predict_prepared(self, prepared: Sequence[PreparedImage]) -> list[ImagePrediction]:
        """The same for pictures that this pipeline has prepared."""
        found, doubts = self._detect(prepared, self.bundle.detector)
        boxes = [(one.image, each.box) for one, many in zip(prepared, found, strict=True) for each in many]
        readings = iter(self.read(boxes, None if self.bundle.detector else 0.0))
        return [
            self._assembled(one.image, many, doubt, readings)
            for one, many, doubt in zip(prepared, found, doubts, strict=True)
        ]

    def read(
        self, boxes: Sequence[tuple[DecodedImage, PixelBox]], padding: float | None = None
    ) -> list[Reading | None]:
        """The classifier's reading of each box, given in original pixels; None for all without a classifier.

        `padding` replaces the bundle's crop padding.
        """
        spec, graph = self.bundle.classifier, self._classifier
        if spec is None or graph is None:
            return [None] * len(boxes)
        share = spec.crop_padding if padding is None else padding
        readings: list[Reading | None] = []
        for part in _parts(boxes, CLASSIFIER_BATCH):
            crops = [
                preprocessing.crop_lesion(image.pixels, image.to_pixels(box), share, spec.input_size)
                for image, box in part
            ]
            outputs = graph.run(preprocessing.scale_crops(np.stack(crops), spec.scaling), first="logits")
            readings += self._readings(outputs, spec)
        return readings

    def detections(self, pictures: Sequence[DecodedImage], floor: float, most: int) -> list[list[Detection]]:
        """All that the detector sees in each picture down to a score, at most so many, best first; nothing without one.

        Those that are served come first and are what `predict` finds; they alone are outlined.
        """
        spec = self.bundle.detector
        if spec is None:
            return [[] for _ in pictures]
        faint = replace(spec, score_threshold=min(floor, spec.score_threshold), max_detections=most)
        return self._detect([self.prepare(picture) for picture in pictures], faint, spec)[0]

    def find(self, image: DecodedImage, points: Sequence[Point]) -> list[Detection | None]:
        """The best detection around each point in original pixels, however faint; None where there is none.

        Where the whole picture shows none there, the detector looks at the quarter around the point alone.
        """
        if self.bundle.detector is None or not points:
            return [None] * len(points)
        whole = self._faint(image)
        return [_best(whole, at) or self._nearer(image, at) for at in points]

    def lesion(self, box: PixelBox, score: float | None, found: Reading | None, shape: Polygon | None = None) -> Lesion:
        """A lesion in the house's words, out of a box, its reading, and its outline where there is one."""
        plain = Lesion(box=box, score=score, shape=shape, origin=Origin.PREDICTION)
        if found is None:
            return plain
        known = self.bundle.taxonomy
        return replace(
            plain,
            diagnosis=found.top if found.target is Target.DIAGNOSIS else None,
            severity=reading.top_severity(found, known),
            probabilities=tuple((reading.display_name(n, found.target, known), p) for n, p in found.probabilities),
        )

    def _nearer(self, image: DecodedImage, at: Point) -> Detection | None:
        view, x, y = _close_up(image, at)
        return _best([one.shifted(x, y) for one in self._faint(view)], at)

    def _faint(self, image: DecodedImage) -> list[Detection]:
        assert self.bundle.detector is not None
        spec = replace(self.bundle.detector, score_threshold=_POINTED_FLOOR, max_detections=_POINTED_DETECTIONS)
        return self._detect([self.prepare(image)], spec)[0][0]

    def _detect(
        self, prepared: Sequence[PreparedImage], spec: DetectorSpec | None, outlined: DetectorSpec | None = None
    ) -> tuple[list[list[Detection]], list[float]]:
        graph = self._detector
        if spec is None or graph is None:
            whole = [PixelBox(0, 0, one.image.size.width, one.image.size.height) for one in prepared]
            return [[Detection(box, 1.0)] for box in whole], [0.0] * len(prepared)
        found: list[list[Detection]] = []
        doubts: list[float] = []
        for part in _parts(prepared, DETECTOR_BATCH):
            squares = [preprocessing.detector_input([one.square]) for one in part if one.square is not None]
            for one, outputs in zip(part, graph.run_each(squares, first="output0"), strict=True):
                candidates = _candidates(outputs[0][0], spec)
                prototypes = outputs[1][0] if spec.task is DetectorTask.SEGMENT else None
                found.append(_kept(candidates, spec, one, prototypes, outlined or spec))
                doubts.append(_doubt(candidates, spec.score_threshold))
        return found, doubts

    def _readings(self, outputs: tuple[Floats, ...], spec: ClassifierSpec) -> Iterator[Reading]:
        shares = preprocessing.softmax(outputs[0], spec.temperature)
        for number, row in enumerate(shares):
            found = reading.read(row.tolist(), spec, self.bundle.taxonomy)
            cam = _activation(outputs[1][number], int(row.argmax())) if len(outputs) > 1 else None
            yield replace(found, cam=cam)

    def _assembled(
        self, image: DecodedImage, found: list[Detection], doubt: float, readings: Iterator[Reading | None]
    ) -> ImagePrediction:
        own = tuple(next(readings) for _ in found)
        pairs = zip(found, own, strict=True)
        lesions = tuple(self.lesion(one.box, self._score(one, its), its, one.shape) for one, its in pairs)
        unsure = max((its.uncertainty for its in own if its is not None), default=0.0)
        return ImagePrediction(image.size, lesions, max(doubt, unsure), self.bundle.version, own)

    def _score(self, found: Detection, its: Reading | None) -> float:
        if self.bundle.detector is None and its is not None:
            return max(share for _, share in its.probabilities)
        return found.score


def _candidates(row: Floats, spec: DetectorSpec) -> Candidates:
    floor = min(spec.score_threshold, _CANDIDATE_FLOOR)
    return preprocessing.decode_detections(row, floor, spec, spec.max_detections + 1)


def _kept(
    candidates: Candidates,
    spec: DetectorSpec,
    prepared: PreparedImage,
    prototypes: Floats | None,
    outlined: DetectorSpec,
) -> list[Detection]:
    image, place = prepared.image, prepared.place
    if place is None:
        return []
    boxes = place.to_picture(candidates.boxes)
    found: list[Detection] = []
    for number, (edges, score) in enumerate(zip(boxes.tolist(), candidates.scores.tolist(), strict=True)):
        if score >= spec.score_threshold and len(found) < spec.max_detections:
            box = image.to_original(PixelBox(*edges)).clipped(image.size)
            if box.width >= 1 and box.height >= 1:
                seen = score >= outlined.score_threshold and len(found) < outlined.max_detections
                drawn = prototypes if seen else None
                shape = None if drawn is None else _outline(candidates, number, drawn, spec, prepared)
                found.append(Detection(box, min(score, 1.0), shape))
    return found


def _outline(
    candidates: Candidates, number: int, prototypes: Floats, spec: DetectorSpec, prepared: PreparedImage
) -> Polygon | None:
    ring = masks.outline(candidates.coefficients[number], prototypes, candidates.boxes[number], spec.input_size)
    if ring is None or prepared.place is None:
        return None
    points = prepared.place.to_picture(np.concatenate((ring, ring), axis=1))[:, :2]
    size, (height, width) = prepared.image.size, prepared.image.pixels.shape[:2]
    original = (points * [size.width / width, size.height / height]).clip(0, [size.width, size.height])
    return Polygon(tuple((float(x), float(y)) for x, y in original))


def _close_up(image: DecodedImage, at: Point) -> tuple[DecodedImage, float, float]:
    """Half the picture's width and height around a point, as a picture, and where it begins in original pixels."""
    height, width = image.pixels.shape[:2]
    across, down = image.size.width / width, image.size.height / height
    wide, high = max(width // 2, 1), max(height // 2, 1)
    left = min(max(round(at[0] / across) - wide // 2, 0), width - wide)
    top = min(max(round(at[1] / down) - high // 2, 0), height - high)
    size = ImageSize(max(round(wide * across), 1), max(round(high * down), 1))
    part = np.ascontiguousarray(image.pixels[top : top + high, left : left + wide])
    return DecodedImage(part, size), left * across, top * down


def _best(found: Sequence[Detection], at: Point) -> Detection | None:
    return max((one for one in found if _holds(one.box, at)), key=lambda one: one.score, default=None)


def _holds(box: PixelBox, at: Point) -> bool:
    return box.x_min <= at[0] <= box.x_max and box.y_min <= at[1] <= box.y_max


def _doubt(candidates: Candidates, threshold: float) -> float:
    """How near the nearest candidate is to the line between lesion and nothing: 1 on it, 0 at a score of 0 or 1."""
    below, above = max(threshold, 1e-6), max(1 - threshold, 1e-6)
    scores = np.append(candidates.scores, candidates.peak)
    shares = np.where(scores < threshold, scores / below, (1 - scores) / above)
    return float(shares.clip(0, 1).max(initial=0.0))


def _activation(maps: Floats, column: int) -> NDArray[np.float32]:
    values = np.maximum(maps[..., column], 0)
    peak = float(values.max(initial=0.0))
    return np.asarray(values / peak if peak > 0 else values, dtype=np.float32)


def _parts(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
