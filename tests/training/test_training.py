"""Real trainings of a few seconds: data in, ONNX out, served, measured, gated, promoted, taken up after a kill."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from builders_training import disputed, version_of
from typer.testing import CliRunner

from converters.dataset import DatasetVersion, Split
from ml_backend.bundle import DetectorTask, champion_version
from ml_backend.onnx_session import Graph
from training import classifier, config, datasets, detector, export, registry, retrain, runs, toolbox, tuning
from training.cli import app
from training.config import ClassifierConfig, DetectorConfig, TrainingConfig
from training.datasets import YoloFolder
from training.decoy import worse_candidate
from training.errors import ConfigError, DataError, ParityError
from training.runs import Run

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore"),  # torch, tensorflow and tf2onnx warn about each other's age
]
TINY = replace(
    config.recipe("first"),
    detector=DetectorConfig(image_size=64, epochs=2, batch=4, weights="scratch", validate_each_epoch=False),
    classifier=ClassifierConfig(
        image_size=32, epochs=2, batch=4, weights="scratch", precision="float32", backbone="VGG16"
    ),
)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return version_of(tmp_path_factory.mktemp("data"), {Split.TRAIN: 12, Split.VAL: 6, Split.TEST: 6})


@pytest.fixture(scope="module")
def home(version: DatasetVersion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    retrain.train_first_bundle(version, models=folder / "models", runs=folder / "runs", config=TINY)
    return folder


def test_the_first_bundle_has_both_parts_and_is_served(home: Path) -> None:
    champion = registry.champion(home / "models")
    assert champion is not None
    assert champion.detector is not None
    assert champion.classifier is not None
    assert champion.lineage["detector_start"] == "scratch"
    assert [entry.version for entry in registry.history(home / "models")] == [champion.version]
    logits, cam = Graph(champion.classifier_path).run(np.zeros((3, 32, 32, 3), dtype=np.float32))
    assert logits.shape == (3, 3)
    assert cam.shape[0] == 3
    assert cam.shape[-1] == 3
    assert np.allclose(cam.mean(axis=(1, 2)), logits, atol=1e-4)


def test_a_second_call_keeps_the_champion(home: Path, version: DatasetVersion) -> None:
    before = champion_version(home / "models")
    retrain.train_first_bundle(version, models=home / "models", runs=home / "runs", config=TINY)
    assert champion_version(home / "models") == before


def stop(part: str, done: int, total: int, text: str) -> None:
    if done == 1:
        raise KeyboardInterrupt


def test_one_part_is_retrained_from_the_champion_stopped_taken_up_and_paired_with_its_other_part(
    home: Path, version: DatasetVersion
) -> None:
    champion = registry.champion(home / "models")
    settings = replace(
        TINY,
        classifier=replace(TINY.classifier, weights="auto", epochs=2),
        gate=replace(TINY.gate, policy="small-set"),
    )
    folders = {"models": home / "models", "runs": home / "runs"}
    with pytest.raises(KeyboardInterrupt, match="Go on with --resume"):
        retrain.retrain(version, config=settings, only="classifier", progress=stop, **folders)
    [left] = runs.unfinished(home / "runs")
    words = ["retrain", "--only", "classifier", "--resume", left.run, "--home", str(home), "--dataset"]
    result = CliRunner().invoke(app, [*words, str(version.root), "--json"], catch_exceptions=False)
    assert result.exit_code == 1
    stages = [orjson.loads(line) for line in result.stdout.splitlines()]
    assert [stage["stage"] for stage in stages] == ["train", "evaluate", "gate"]
    assert stages[0]["run"] == left.run
    assert stages[0]["classifier_start"] == "the champion's checkpoint"
    assert "6 test images; small-set asks for 8 or more" in stages[2]["reasons"]
    candidate = registry.load_bundle(home / "models", stages[0]["version"])
    assert champion is not None
    assert candidate.detector == champion.detector
    assert candidate.detector_path.read_bytes() == champion.detector_path.read_bytes()
    assert champion_version(home / "models") == champion.version
    assert list(runs.unfinished(home / "runs")) == []


class KilledError(Exception):
    """Stands for the end of the process in the middle of a training."""


def kill(part: str, done: int, total: int, text: str) -> None:
    if done == 2:
        raise KilledError


FIT = """
import sys
from pathlib import Path
from converters import dataset
from training import classifier, runs

run, settings = runs.resume(Path(sys.argv[2]), lambda part, done, total, text: print(done, flush=True))
classifier.fit(dataset.load(Path(sys.argv[1])), run, Path(sys.argv[3]), settings.classifier)
"""


def killed_after_two_epochs(version: DatasetVersion, run: Run, cache: Path) -> None:
    command = [sys.executable, "-c", FIT, str(version.root), str(run.folder), str(cache)]
    status = replace(runs.read_status(run.folder), pid=2**22 - 7)
    (run.folder / runs.STATUS).write_bytes(orjson.dumps(asdict(status)))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "2\n" in iter(process.stdout.readline, "")
        process.kill()


def test_a_killed_classifier_training_ends_as_if_it_had_not_been(version: DatasetVersion, tmp_path: Path) -> None:
    fitted = replace(TINY.classifier, epochs=3, schedule="plateau", plateau_patience=1, ema=0.9, dropout=0.3)
    settings, cache, words = TrainingConfig(classifier=fitted), tmp_path / "cache", []
    killed = runs.start(tmp_path / "killed", "fit", version.digest, settings)
    killed_after_two_epochs(version, killed, cache)
    killed, _ = runs.resume(killed.folder, lambda part, done, total, text: words.append(f"{done}/{total}"))
    whole = runs.start(tmp_path / "whole", "fit", version.digest, settings)
    networks = [classifier.fit(version, run, cache, fitted) for run in (killed, whole)]
    assert words == ["3/3"]
    assert networks[0].best == pytest.approx(networks[1].best, abs=1e-6)
    for one, other in zip(*(network.model.get_weights() for network in networks), strict=True):
        assert np.allclose(one, other, atol=1e-6)
    tracked = [figures(run.folder) for run in (killed, whole)]
    assert tracked[0] == [pytest.approx(row) for row in tracked[1]]
    assert {name for name, _, _ in tracked[0]} >= {"classifier/loss", "classifier/top3", "classifier/learning_rate"}


def figures(run_folder: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of every figure in a run's TensorBoard files, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    found = []
    for path in sorted((run_folder / "tensorboard").glob("events.*")):
        events = (Event.FromString(raw) for raw in RawEventFileLoader(str(path)).Load())
        found += [(value.tag, event.step, value.simple_value) for event in events for value in event.summary.value]
    return found


def test_a_killed_detector_training_goes_on_from_its_last_epoch(version: DatasetVersion, tmp_path: Path) -> None:
    settings = replace(TINY.detector, epochs=3)
    run = runs.start(tmp_path / "runs", "detector", version.digest, TrainingConfig(detector=settings), kill)
    with pytest.raises(KilledError):
        detector.train(version, run, tmp_path / "cache", settings)
    words: list[str] = []
    resumed, _ = runs.resume(run.folder, lambda part, done, total, text: words.append(f"{done}/{total}"))
    trained = detector.train(version, resumed, tmp_path / "cache", settings)
    assert set(words) == {"3/3"}
    assert trained.start == "scratch"
    assert not list(run.folder.rglob("draft-*"))
    (run.folder / "detector" / "weights" / "last.pt").write_bytes(b"half a file")
    with pytest.raises(DataError, match="Start a new run"):
        detector.train(version, resumed, tmp_path / "cache", settings)


def test_the_same_seed_gives_the_same_detector(version: DatasetVersion, tmp_path: Path) -> None:
    settings = replace(TINY.detector, epochs=1)
    answers = []
    for name in ("one", "two"):
        run = runs.start(tmp_path / name, "detector", version.digest, TrainingConfig())
        graph = detector.train(version, run, tmp_path / "cache", settings).graph
        answers.append(Graph(graph).run(np.full((1, 3, 64, 64), 0.5, dtype=np.float32))[0])
    assert np.allclose(answers[0], answers[1], atol=1e-6)


def test_exports_answer_as_the_served_graph_does(home: Path, version: DatasetVersion) -> None:
    champion = registry.champion(home / "models")
    assert champion is not None
    assert int(champion.lineage["classifier_opset"]) >= 12
    checkpoint = home / "runs" / champion.lineage["classifier_run"] / classifier.CHECKPOINT
    golden = export.golden_images(champion, version)
    sizes = {}
    for form in (export.Form.SAVED_MODEL, export.Form.TFLITE, export.Form.TFLITE_DYNAMIC):
        made = export.export_form(champion, form, home / form, golden, checkpoint, home / "tools")
        assert made.gap <= made.tolerance == export.TOLERANCES[form]
        sizes[form] = made.size
    assert sizes[export.Form.TFLITE_DYNAMIC] < sizes[export.Form.TFLITE] / 3
    small = export.int8_bundle(champion, version, home / "models", home / "int8")
    assert small.lineage["precision"] == "int8"
    assert small.classifier_path.stat().st_size < champion.classifier_path.stat().st_size / 3
    assert retrain.evaluate(small, version, TINY).cases


def test_an_export_that_answers_otherwise_is_refused(home: Path, version: DatasetVersion) -> None:
    champion = registry.champion(home / "models")
    assert champion is not None
    checkpoint = home / "runs" / champion.lineage["classifier_run"] / classifier.CHECKPOINT
    golden = export.golden_images(champion, version)
    other = replace(champion, root=worse_candidate(champion, home / "spoilt").root)
    with pytest.raises(ParityError, match="Serve the ONNX graph"):
        export.export_form(other, export.Form.TFLITE, home / "other.tflite", golden, checkpoint, home / "tools")
    with pytest.raises(DataError, match="Export where it was trained"):
        export.export_form(champion, export.Form.TFLITE, home / "none.tflite", golden, home / "gone", home / "tools")


@pytest.mark.soak
def test_tensorflow_js_answers_in_a_browser_as_the_served_graph_does(home: Path, version: DatasetVersion) -> None:
    champion = registry.champion(home / "models")
    assert champion is not None
    checkpoint = home / "runs" / champion.lineage["classifier_run"] / classifier.CHECKPOINT
    golden = export.golden_images(champion, version)
    form = export.Form.TFJS
    made = export.export_form(champion, form, home / form, golden, checkpoint, toolbox.tools_folder())
    assert made.gap <= made.tolerance
    assert (home / form / "model.json").is_file()


def test_a_tuning_study_goes_on_where_it_was_stopped(version: DatasetVersion, tmp_path: Path) -> None:
    options = {"folder": tmp_path, "config": replace(TINY, detector=replace(TINY.detector, epochs=1)), "trials": 1}
    space = {"mosaic": tuning.Range(choices=(0.0, 0.5))}
    counts = [tuning.tune(version, "detector", space=space, sampler="grid", **options).trials for _ in range(2)]
    assert counts == [1, 2]


def test_a_segmenting_detector_is_trained_exported_served_and_measured(tmp_path: Path) -> None:
    version = disputed(tmp_path, {Split.TRAIN: 8, Split.VAL: 3, Split.TEST: 3})
    settings = replace(TINY, detector=replace(TINY.detector, task=DetectorTask.SEGMENT, epochs=1))
    folders = {"models": tmp_path / "models", "runs": tmp_path / "runs"}
    parts = retrain.train(version, config=settings, only="detector", **folders)
    assert parts.detector is not None
    weights = parts.detector[0].data.data_file.parent / "weights"
    assert len(list(weights.iterdir())) == 8
    assert parts.detector[0].parity <= settings.detector.parity_tolerance
    bundle = retrain.pair(parts, version, folders["models"], settings, None)
    assert bundle.detector is not None
    assert bundle.detector.task is DetectorTask.SEGMENT
    dice = retrain.evaluate(bundle, version, settings).get("dice")
    assert dice is not None
    assert dice.cases == 3


def test_a_lesion_of_half_the_weight_pulls_half_as_much() -> None:
    import torch
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils import DEFAULT_CFG

    from training import yolo_trainers

    model = DetectionModel("yolo11n.yaml", nc=1, verbose=False)
    model.args = DEFAULT_CFG
    yolo_trainers.weigh_lesions(model)
    generator = torch.Generator().manual_seed(0)
    scores, points = torch.rand((1, 16, 1), generator=generator), torch.arange(16)[:, None].repeat(1, 2) * 4.0 + 2
    boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0], [32.0, 32.0, 64.0, 64.0]])[None]
    found = points.repeat(1, 2)[None] + torch.tensor([-16.0, -16.0, 16.0, 16.0])
    targets = []
    for lacking in (0.0, 0.5):
        labels = torch.tensor([[[lacking], [0.0]]])
        _, _, target, hit, chosen = model.criterion.assigner(scores, found, points, labels, boxes, torch.ones(1, 2, 1))
        targets.append([float(target[0, hit[0] & (chosen[0] == number)].sum()) for number in (0, 1)])
    assert targets[0][0] > 0
    assert targets[1] == pytest.approx([targets[0][0] / 2, targets[0][1]])


def test_several_graphics_cards_get_the_trainer_its_settings_and_a_callback_that_reports_from_there(
    version: DatasetVersion, tmp_path: Path
) -> None:
    from training import yolo_trainers

    settings = config.decode({"detector": {"device": "0,1", "batch": 6, "image_size": 64, "epochs": 3}}).detector
    data = datasets.yolo_folder(version, tmp_path, 64, outlines=True)
    words: list[str] = []
    watcher = lambda part, done, total, text: words.append(f"{done}/{total} {text}")  # noqa: E731
    run = runs.start(tmp_path / "runs", "detector", version.digest, TrainingConfig(detector=settings), watcher)
    model = detector._ultralytics(tmp_path)("yolo11n.yaml")
    with detector._watched(model, run, settings):
        arguments = {**detector._arguments(settings, data, run.folder), "device": "cpu", "model": "yolo11n.yaml"}
        trainer = detector._trainer(settings)(overrides=arguments, _callbacks=model.callbacks)
        trainer.args.device = settings.device
        answer = subprocess.run([sys.executable, "-c", WORKER, ddp_file(trainer)], capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
    kind, device, batch, epochs, weight = answer.stdout.split()[-5:]
    assert (kind, device, batch, epochs) == (yolo_trainers.WeightedDetectionTrainer.__name__, "0,1", "6", "3")
    assert float(weight) == settings.box_gain
    assert words == ["1/3 loss 6.00, validation mAP50 0.500"]


def ddp_file(trainer: object) -> str:
    """What ultralytics hands to each process of a training on several graphics cards."""
    from ultralytics.utils.dist import generate_ddp_file

    return generate_ddp_file(trainer)


WORKER = """
import ast, sys
from pathlib import Path
from types import SimpleNamespace
from ultralytics.utils.patches import torch_load

code = Path(sys.argv[1]).read_text()
exec(next(line.strip() for line in code.splitlines() if "sys.path =" in line))
state = torch_load(str(Path(sys.argv[1]).with_suffix(".pt")), map_location="cpu")
one = SimpleNamespace(epoch=0, tloss=[1.0, 2.0, 3.0], lr={"pg0": 0.1}, metrics={"metrics/mAP50(B)": 0.5})
for callback in state["callbacks"]["on_fit_epoch_end"]:
    callback(one)
args = state["args"]
print(state["trainer"].__name__, args["device"], args["batch"], args["epochs"], args["box"])
"""


def test_weights_learnt_on_coco_are_taken_over_wherever_the_shapes_agree(
    version: DatasetVersion, tmp_path: Path
) -> None:
    import torch

    yolo = detector._ultralytics(tmp_path)
    coco = yolo("yolo11n.yaml")
    assert coco.model.model[-1].nc == 80
    with torch.no_grad():
        for weight in coco.model.parameters():
            weight.fill_(0.01)
    coco.save(tmp_path / "coco.pt")
    settings = replace(TINY.detector, weights=str(tmp_path / "coco.pt"), epochs=1, learning_rate=0.0)
    run = runs.start(tmp_path / "runs", "detector", version.digest, TrainingConfig(detector=settings))
    trained = detector.train(version, run, tmp_path / "cache", settings)
    assert trained.start == "the file coco.pt"
    found = yolo(trained.checkpoint).model
    assert found.model[-1].nc == 1
    same = {name: bool((weight - 0.01).abs().max() < 1e-3) for name, weight in found.named_parameters()}
    assert sum(same.values()) > 150
    assert all(name.startswith("model.23.cv3") for name, taken in same.items() if not taken)
    assert any(not taken for taken in same.values())


def test_graphics_cards_that_are_not_there_are_refused_before_anything_is_prepared(
    version: DatasetVersion, tmp_path: Path
) -> None:
    settings = config.decode({"detector": {"device": "0,99"}}).detector
    run = runs.start(tmp_path / "runs", "detector", version.digest, TrainingConfig(detector=settings))
    with pytest.raises(ConfigError, match=r"graphics cards.*or cpu"):
        detector.train(version, run, tmp_path / "cache", settings)
    assert not (tmp_path / "cache").exists()
    assert detector._arguments(settings, YoloFolder(tmp_path, 0, 0, 0, 0), tmp_path)["device"] == "0,99"
