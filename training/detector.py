"""The one door to torch and ultralytics: trains the lesion detector, exports it to ONNX, proves that both agree."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from converters.dataset import DatasetVersion, Split
from ml_backend import preprocessing
from ml_backend.bundle import DetectorTask
from ml_backend.onnx_session import Graph
from ml_backend.preprocessing import Floats
from training import datasets
from training.config import DetectorConfig
from training.datasets import YoloFolder
from training.errors import ConfigError, DataError, MissingExtraError, ParityError
from training.folding import folded
from training.quiet import children_to, quiet
from training.runs import Run

CHECKPOINT = "detector.pt"
GRAPH = "detector.onnx"
_START = "detector-start.txt"
_GOLDEN = 4
_LOOK = 0.5


@dataclass(frozen=True, slots=True)
class TrainedDetector:
    """A trained detector: its graph, the checkpoint to start the next one from, and how it came about.

    `start` says in words which weights it began with; `parity` is the largest difference between graph and checkpoint
    on golden images, relative to the largest output.
    """

    graph: Path
    checkpoint: Path
    start: str
    epochs: int
    seconds: float
    parity: float
    data: YoloFolder


def train(
    version: DatasetVersion, run: Run, cache: Path, config: DetectorConfig, champion: Path | None = None
) -> TrainedDetector:
    """The detector trained on a version's training split, taken up where a killed run stopped.

    `champion` is the checkpoint to warm-start from. Raises DataError for a split without lesions, MissingExtraError
    without the `train` extra, ParityError where the export answers differently.
    """
    clock = time.monotonic()
    _require_device(config)
    weight = config.agreement_weight
    data = datasets.yolo_folder(version, cache, config.image_size, outlines=True, agreement_weight=weight)
    with quiet(run, run.folder / "detector.log") as run:
        yolo = _ultralytics(cache)
        last = run.folder / "detector" / "weights" / "last.pt"
        begun = run.folder / _START
        if not last.is_file():
            model, start = _model(yolo, config, champion, run)
            begun.write_text(start, encoding="utf-8")
            with _watched(model, run, config):
                model.train(_trainer(config), **_arguments(config, data, run.folder))
        elif _unfinished(last):
            model = yolo(last)
            with _watched(model, run, config):
                model.train(_trainer(config), resume=True)
        start = begun.read_text(encoding="utf-8")
        checkpoint = _keep_checkpoint(run.folder, config)
        graph = export(checkpoint, run.folder / GRAPH, config.image_size)
        golden = _golden(version, config.image_size)
        parity = _parity(yolo(checkpoint), graph, golden, config.parity_tolerance)
    return TrainedDetector(graph, checkpoint, start, config.epochs, time.monotonic() - clock, parity, data)


def export(checkpoint: Path, target: Path, image_size: int) -> Path:
    """The checkpoint's ONNX graph at `target`: dynamic batch, fixed square, without suppression inside."""
    import onnx

    model = _ultralytics(target.parent)(checkpoint)
    written = model.export(format="onnx", imgsz=image_size, dynamic=True, simplify=False, device="cpu", verbose=False)
    onnx.save(folded(onnx.load(written)), target)
    if Path(written) != target:
        Path(written).unlink()
    return target


def _ultralytics(cache: Path) -> Any:
    os.environ.setdefault("YOLO_CONFIG_DIR", str(cache.resolve()))
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the backend serves beside: threads must not spin
    try:
        from ultralytics import YOLO, settings
        from ultralytics.utils import USER_CONFIG_DIR
    except ImportError as error:
        raise MissingExtraError(
            "ultralytics", str(error), "the train extra", "Run `pip install dermloop[train]`."
        ) from error
    integrations = ("sync", "clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune", "tensorboard", "wandb")
    wanted = {name: False for name in integrations if settings.get(name)}
    if wanted:
        settings.update(wanted)
    _place_font(Path(USER_CONFIG_DIR))
    return YOLO


def _place_font(folder: Path) -> None:
    """Gives ultralytics the font it would otherwise download before its first training."""
    if not (folder / "Arial.ttf").is_file():
        from matplotlib import get_data_path

        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", folder / "Arial.ttf")


def _model(yolo: Any, config: DetectorConfig, champion: Path | None, run: Run) -> tuple[Any, str]:
    if config.weights not in ("auto", "scratch"):
        path = Path(config.weights)
        if not path.is_file():
            raise DataError("detector weights", config.weights, "an existing checkpoint", "Correct detector.weights.")
        return yolo(path), f"the file {path.name}"
    if config.weights == "auto" and champion is not None and champion.is_file():
        return yolo(champion), "the champion's checkpoint"
    if config.weights == "auto" and (coco := _coco(run.folder, _architecture(config))) is not None:
        return yolo(coco), "COCO weights"
    run.report("detector", 0, config.epochs, "no pretrained weights: training from scratch")
    return yolo(f"{_architecture(config)}.yaml"), "scratch"


def _architecture(config: DetectorConfig) -> str:
    """The name of ultralytics' architecture; the one with masks where outlines are asked for."""
    if config.task is DetectorTask.SEGMENT and not config.model.endswith("-seg"):
        return f"{config.model}-seg"
    return config.model


def _trainer(config: DetectorConfig) -> Any:
    from training import yolo_trainers

    segment = config.task is DetectorTask.SEGMENT
    kind = yolo_trainers.WeightedSegmentationTrainer if segment else yolo_trainers.WeightedDetectionTrainer
    wanted = config.precision == "bfloat16" or (config.precision == "auto" and yolo_trainers.has_half_units())
    return yolo_trainers.with_half(kind) if wanted and config.device == "cpu" else kind


def _require_device(config: DetectorConfig) -> None:
    """Raises ConfigError for graphics cards that are not there, before anything is prepared."""
    if config.device in ("cpu", "mps"):
        return
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", str(error), "the train extra", "Run `pip install dermloop[train]`.") from error
    there = torch.cuda.device_count()
    wanted = [int(number) for number in config.device.removeprefix("cuda:").split(",")]
    if max(wanted) >= there or len(wanted) > there:
        cure = "Name cards that are there, or cpu."
        raise ConfigError("detector.device", config.device, f"{there} graphics cards", cure)


def _coco(folder: Path, model: str) -> Path | None:
    """COCO's weights by ultralytics' own download, or None where there is no network or the download fails."""
    from ultralytics.utils import ONLINE
    from ultralytics.utils.downloads import attempt_download_asset

    if not ONLINE:
        return None
    with contextlib.suppress(Exception):
        found = Path(attempt_download_asset(str(folder / f"{model}.pt")))
        return found if found.is_file() else None
    return None


def _arguments(config: DetectorConfig, data: YoloFolder, folder: Path) -> dict[str, Any]:
    return {
        "data": str(data.data_file.resolve()),
        "epochs": config.epochs,
        "imgsz": config.image_size,
        "batch": config.batch,
        "nbs": config.nominal_batch,
        "optimizer": config.optimizer,
        "lr0": config.learning_rate,
        "lrf": config.final_learning_rate,
        "weight_decay": config.weight_decay,
        "warmup_epochs": config.warmup_epochs,
        "warmup_bias_lr": config.learning_rate,
        "cos_lr": config.cosine,
        "patience": config.patience,
        "val": config.validate_each_epoch,
        "mosaic": config.mosaic,
        "close_mosaic": min(config.close_mosaic, config.epochs),
        "scale": config.scale,
        "translate": config.translate,
        "degrees": config.degrees,
        "flipud": config.flip_vertical,
        "fliplr": config.flip_horizontal,
        "hsv_h": config.hue,
        "hsv_s": config.saturation,
        "hsv_v": config.brightness,
        "erasing": config.erasing,
        "box": config.box_gain,
        "cls": config.class_gain,
        "dfl": config.distribution_gain,
        "device": config.device,
        "workers": config.workers,
        "seed": config.seed,
        "deterministic": True,
        "cache": "ram",
        "amp": False,
        "plots": False,
        "verbose": False,
        "project": str(folder.resolve()),
        "name": "detector",
        "exist_ok": True,
    }


@contextlib.contextmanager
def _watched(model: Any, run: Run, config: DetectorConfig) -> Iterator[None]:
    """Tells the run of every epoch inside the block, also of those that processes of several graphics cards finish."""
    from training import yolo_trainers

    if "," not in config.device:
        model.add_callback("on_fit_epoch_end", lambda one: _note(yolo_trainers.epoch_figures(one), run, config))
        yield
        return
    told = yolo_trainers.EpochFile(run.folder / "detector-epochs.jsonl")
    told.path.write_bytes(b"")
    model.add_callback("on_fit_epoch_end", told)
    with children_to(run.folder / "detector.log"), _followed(told.path, run, config):
        yield


@contextlib.contextmanager
def _followed(told: Path, run: Run, config: DetectorConfig) -> Iterator[None]:
    """Tells the run of each line that the file has or gets until the end of the block."""
    ended = threading.Event()

    def follow() -> None:
        with told.open("rb") as stream:
            last = False
            while not last:
                last = ended.wait(_LOOK)
                for line in iter(stream.readline, b""):
                    _note(orjson.loads(line), run, config)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def _note(figures: Mapping[str, float], run: Run, config: DetectorConfig) -> None:
    """Tells the run of one epoch."""
    epoch = min(int(figures["epoch"]), config.epochs)
    text = f"loss {figures['loss']:.2f}"
    if found := figures.get("mAP50(B)"):
        text += f", validation mAP50 {found:.3f}"
    run.measure("detector", epoch, {name: value for name, value in figures.items() if name != "epoch"})
    run.report("detector", epoch, config.epochs, text)


def _unfinished(last: Path) -> bool:
    """Whether a checkpoint still holds its optimizer: ultralytics strips it when a training ends.

    Raises DataError for half a file: a kill in the very moment of stripping leaves one.
    """
    import torch

    try:
        return int(torch.load(last, map_location="cpu", weights_only=False).get("epoch", -1)) >= 0
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        words = str(error).splitlines()[0][:120]
        raise DataError(str(last), words, "a whole checkpoint", "Start a new run.") from error


def _keep_checkpoint(folder: Path, config: DetectorConfig) -> Path:
    weights = folder / "detector" / "weights"
    chosen = weights / ("best.pt" if config.validate_each_epoch else "last.pt")
    shutil.copyfile(chosen if chosen.is_file() else weights / "last.pt", folder / CHECKPOINT)
    return folder / CHECKPOINT


def _golden(version: DatasetVersion, size: int) -> Floats:
    items = list(datasets.gradable(version.dataset.only(Split.VAL)))[:_GOLDEN]
    squares = [preprocessing.letterbox(datasets.read_decoded(version, item).pixels, size)[0] for item in items]
    return preprocessing.detector_input(squares)


def _parity(model: Any, graph: Path, golden: Floats, tolerance: float) -> float:
    """Largest difference between graph and model on golden images, relative to the largest output."""
    import torch

    with torch.no_grad():
        answer = list(_tensors(model.model.float().eval()(torch.from_numpy(golden))))
    gaps = []
    for name, found in zip(("output0", "output1"), Graph(graph).run(golden, first="output0"), strict=False):
        wanted = next((one for one in answer if one.shape == found.shape), None)
        if wanted is None:
            shapes = [one.shape for one in answer]
            raise ParityError(f"{graph.name}, {name}", found.shape, f"one of {shapes}", "Export the model again.")
        gaps.append(float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    if not max(gaps) <= tolerance:
        raise ParityError(graph.name, max(gaps), f"a difference of at most {tolerance}", "Export the model again.")
    return max(gaps)


def _tensors(answer: Any) -> Iterator[Any]:
    """All arrays in a model's answer, in order: boxes first, prototypes of masks behind them."""
    if isinstance(answer, tuple | list):
        for part in answer:
            yield from _tensors(part)
    elif hasattr(answer, "numpy"):
        yield answer.numpy()
