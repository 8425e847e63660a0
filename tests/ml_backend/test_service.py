"""Many pictures at once: time is kept even where a picture is slow, and a graph's failure stays with its picture."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from builders_serving import bundle, encoded, pixels

from ml_backend.champions import FolderChampions
from ml_backend.errors import InferenceError, OutOfTimeError
from ml_backend.host import PipelineHost
from ml_backend.pipeline import ImagePrediction, Pipeline, PreparedImage
from ml_backend.service import Picture, PredictionService

GOOD = encoded(pixels())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PredictionService]:
    bundle(tmp_path)
    made = PredictionService(PipelineHost(FolderChampions(tmp_path / "models")))
    yield made
    made.close()


def test_a_picture_that_does_not_come_costs_no_more_than_the_time_given(service: PredictionService) -> None:
    release = threading.Event()

    def slow() -> bytes:
        release.wait(10)
        return GOOD

    service.host.current()
    began = time.monotonic()
    pictures = [Picture("quick", lambda: GOOD), Picture("slow", slow), Picture("also quick", lambda: GOOD)]
    analysis = service.analyse(pictures, seconds=0.5)
    took = time.monotonic() - began
    release.set()
    assert took < 5
    assert isinstance(analysis.outcomes[1].error, OutOfTimeError)


def test_a_slow_host_does_not_hold_up_other_callers(service: PredictionService) -> None:
    release = threading.Event()

    def slow() -> bytes:
        release.wait(10)
        return GOOD

    service.host.current()
    stuck = threading.Thread(target=lambda: service.analyse([Picture("slow", slow)] * 4))
    stuck.start()
    began = time.monotonic()
    (outcome,) = service.analyse([Picture("quick", lambda: GOOD)]).outcomes
    took = time.monotonic() - began
    release.set()
    stuck.join()
    assert outcome.prediction is not None and took < 5


def test_a_graph_that_fails_on_one_picture_reads_the_others(service: PredictionService) -> None:
    class Touchy(Pipeline):
        def predict_prepared(self, prepared: Sequence[PreparedImage]) -> list[ImagePrediction]:
            if any(one.image.size.width == 161 for one in prepared):
                raise InferenceError("model graph", "Fail", "an input", "Check the bundle.")
            return super().predict_prepared(prepared)

    touchy = Touchy.open(service.host.current().bundle)
    contents = [GOOD, encoded(pixels(161)), GOOD]
    pictures = [Picture(str(number), lambda content=content: content) for number, content in enumerate(contents)]
    analysis = service.analyse(pictures, pipeline=touchy)
    assert [outcome.prediction is not None for outcome in analysis.outcomes] == [True, False, True]


def test_a_graph_s_own_failure_has_a_name(service: PredictionService) -> None:
    import numpy as np

    pipeline = service.host.current()
    with pytest.raises(InferenceError, match="shape"):
        pipeline._detector.run(np.zeros((1, 3, 7, 7), np.float32))  # type: ignore[union-attr]


def test_callers_from_several_threads_get_their_own_answers(service: PredictionService) -> None:
    sizes = list(range(100, 130))
    found: dict[int, list[int]] = {}

    def ask(size: int) -> None:
        content = encoded(pixels(size, 90))
        analysis = service.analyse([Picture("p", lambda: content)] * 3)
        found[size] = [o.prediction.size.width for o in analysis.outcomes if o.prediction]

    threads = [threading.Thread(target=ask, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {size: [size] * 3 for size in sizes}
