"""Graphs as ultralytics really exports them go through the pipeline: names, shapes and prototypes are what we think."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from builders_serving import encoded, pixels

from converters import taxonomy
from converters.geometry import Polygon
from ml_backend.bundle import DetectorSpec, DetectorTask, write_bundle
from ml_backend.images import decode
from ml_backend.pipeline import Pipeline

pytestmark = pytest.mark.train
SIZE = 128
EXPORT = """
import sys
from ultralytics import YOLO
model = YOLO(sys.argv[1])
model.export(format="onnx", dynamic=True, imgsz=int(sys.argv[2]), opset=17, simplify=False)
"""


def exported(folder: Path, name: str) -> Path:
    environment = {**os.environ, "YOLO_OFFLINE": "1", "YOLO_CONFIG_DIR": str(folder)}
    (folder / f"{name}.yaml").write_text(config(name), encoding="utf-8")
    command = [sys.executable, "-c", EXPORT, f"{name}.yaml", str(SIZE)]
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-2000:]
    return next(folder.glob("*.onnx"))


def config(name: str) -> str:
    """The library's own architecture for one class."""
    import importlib.util

    root = Path(str(importlib.util.find_spec("ultralytics").origin)).parent  # type: ignore[union-attr]
    source = next(root.glob(f"cfg/models/11/{name.replace('n', '')}.yaml"))
    return source.read_text(encoding="utf-8").replace("nc: 80", "nc: 1")


@pytest.mark.parametrize(("name", "task"), [("yolo11n", DetectorTask.DETECT), ("yolo11n-seg", DetectorTask.SEGMENT)])
def test_an_exported_head_is_read_as_it_is_meant(tmp_path: Path, name: str, task: DetectorTask) -> None:
    graph = exported(tmp_path, name)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    raw = session.run(["output0"], {"images": np.full((1, 3, SIZE, SIZE), 0.5, np.float32)})[0]
    assert raw.shape[1] == 5 + (32 if task is DetectorTask.SEGMENT else 0)
    spec = DetectorSpec(SIZE, task, score_threshold=float(np.sort(raw[0, 4])[-10]) * 0.5, max_detections=3)
    bundle = write_bundle(
        tmp_path / "models",
        name="real",
        taxonomy=taxonomy.read(),
        detector=(graph, spec),
        classifier=None,
        lineage={},
    )
    contents = [encoded(pixels(200 + 20 * n, 150)) for n in range(3)]
    found = Pipeline.open(bundle).predict([decode(content, "p") for content in contents])
    lesions = [lesion for one in found for lesion in one.lesions]
    assert lesions and all(lesion.box.x_max <= 260 and lesion.box.y_max <= 150 for lesion in lesions)
    if task is DetectorTask.SEGMENT:
        assert any(isinstance(lesion.shape, Polygon) for lesion in lesions)
