"""The one door to TensorBoard's and MLflow's writers: every epoch's figures, for people who watch trainings there."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

from training.config import TrackingConfig, TrainingConfig
from training.errors import MissingExtraError, TrackingError

EVENTS = "tensorboard"
_TAG = "dermloop.run"
_FOREIGN = re.compile(r"[^\w./ -]")
"""What MLflow takes for no part of a name."""


class Sink(Protocol):
    """Somewhere figures go: after each epoch, and once more when the run ends."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Keeps the figures of a step; raises TrackingError where they cannot be kept."""

    def close(self, failed: bool) -> None:
        """Nothing more will come."""


class Tracker:
    """All sinks of a run. One that fails in the middle of a training is left out from then on, and `lost` says why."""

    def __init__(self, sinks: tuple[Sink, ...]) -> None:
        self._sinks = list(sinks)
        self.lost = ""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Passes the finite figures of a step to every sink."""
        known = {name: value for name, value in values.items() if value == value}
        for sink in tuple(self._sinks):
            try:
                sink.scalars(step, known)
            except TrackingError as error:
                self._sinks.remove(sink)
                self.lost = str(error)

    def close(self, failed: bool = False) -> None:
        """Closes every sink."""
        while self._sinks:
            try:
                self._sinks.pop().close(failed)
            except TrackingError as error:
                self.lost = str(error)


class TensorBoard:
    """Event files under `<run>/tensorboard`, one for each process that worked on the run."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS / f"events.out.tfevents.{time.time_ns():020d}.{os.getpid()}"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one event with all figures; a killed process loses none of those before."""
        from tensorboard.compat.proto import event_pb2, summary_pb2

        rows = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        event = event_pb2.Event(wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=rows))
        try:
            if not self._path.is_file():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._append(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
            self._append(event)
        except OSError as error:
            raise _lost(str(self._path), error) from error

    def close(self, failed: bool) -> None:
        """Nothing is left open."""

    def _append(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self._path.open("ab") as stream:
            RecordWriter(stream).write(event.SerializeToString())


class MlFlow:
    """One MLflow run for each run folder, taken up again after a kill; `address` is any tracking URI of MLflow's."""

    def __init__(self, address: str, experiment: str, run: str, params: Mapping[str, str]) -> None:
        with _told(address):
            self._client = _mlflow_client(address)
            known = self._client.get_experiment_by_name(experiment)
            place = known.experiment_id if known else self._client.create_experiment(experiment)
            found = self._client.search_runs([place], f"tags.`{_TAG}` = '{run}'", max_results=1)
            self._run = (found or [self._client.create_run(place, run_name=run, tags={_TAG: run})])[0].info.run_id
            if not found:
                for name, value in params.items():
                    self._client.log_param(self._run, name, value)
        self._address = address

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the figures of a step in one request."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        with _told(self._address):
            named = {_FOREIGN.sub("_", name).strip("_"): value for name, value in values.items()}
            self._client.log_batch(self._run, [Metric(name, value, now, step) for name, value in named.items()])

    def close(self, failed: bool) -> None:
        """Marks the run as finished or failed."""
        with _told(self._address):
            self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


def open_tracker(folder: Path, config: TrainingConfig) -> Tracker:
    """The tracker of a run folder as configured; raises TrackingError at once where MLflow cannot be reached."""
    settings: TrackingConfig = config.tracking
    sinks: list[Sink] = [TensorBoard(folder)] if settings.tensorboard else []
    if settings.mlflow:
        sinks.append(MlFlow(settings.mlflow, settings.experiment, folder.name, dict(_params("", config))))
    return Tracker(tuple(sinks))


def track_evaluation(folder: Path, config: TrainingConfig, figures: Mapping[str, float]) -> None:
    """Adds what a finished run's bundle measured to its sinks, as `test/<figure>`; one out of reach costs nothing."""
    with suppress(TrackingError):
        tracker = open_tracker(folder, config)
        tracker.scalars(0, {f"test/{name}": value for name, value in figures.items()})
        tracker.close()


def _params(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    for one in fields(value):
        current, name = getattr(value, one.name), f"{prefix}{one.name}"
        if is_dataclass(current):
            yield from _params(f"{name}.", current)
        elif name != "tracking.mlflow":
            yield name, str(current)


def _mlflow_client(address: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise MissingExtraError(
            "mlflow", str(error), "the mlflow extra", "Run `pip install dermloop[mlflow]`, or empty tracking.mlflow."
        ) from error
    return MlflowClient(tracking_uri=address)


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Keeps MLflow's warnings of its own dependencies quiet, and makes one TrackingError of whatever it raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MissingExtraError:
        raise
    except Exception as error:
        raise _lost(address.split("@")[-1], error) from error


def _lost(item: str, error: Exception) -> TrackingError:
    words = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return TrackingError(item, words, "a place to keep the run's figures", "Correct or remove it under [tracking].")
