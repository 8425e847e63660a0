"""Memory goes back to the system: what opening a graph leaves over, and what a replaced champion held."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from builders_serving import bundle
from onnx import TensorProto, helper, numpy_helper

from converters import taxonomy
from converters.taxonomy import Target
from ml_backend.bundle import ClassifierSpec, set_champion, write_bundle

SIDE = 32
WIDTH, LAYERS = 1024, 12
WEIGHTS_MB = (SIDE * SIDE * 3 * WIDTH + LAYERS * WIDTH**2) * 4 / 1e6
PROGRAM = """
import sys
from pathlib import Path
import psutil
from ml_backend.bundle import list_bundles, set_champion
from ml_backend.champions import FolderChampions
from ml_backend.host import PipelineHost

def taken():
    return psutil.Process().memory_info().rss / 1e6

models = Path(sys.argv[1])
first, second, small = list_bundles(models)
host = PipelineHost(FolderChampions(models))
host.start()
assert host.wait_for(small, 60)
before = taken()
for version in (first, second) * 3:
    set_champion(models, version)
    assert host.wait_for(version, 60)
set_champion(models, small)
assert host.wait_for(small, 60)
while taken() - before > float(sys.argv[2]):
    host.refresh()
host.stop()
"""


def large_classifier(path: Path, classes: int) -> Path:
    """A graph of many middling layers, as real ones are: the allocator keeps what they held."""
    random = np.random.default_rng(5)
    shapes = [(SIDE * SIDE * 3, WIDTH), *[(WIDTH, WIDTH)] * LAYERS, (WIDTH, classes)]
    constants = {f"w{n}": random.normal(size=shape).astype(np.float32) for n, shape in enumerate(shapes)}
    constants["shape"] = np.array([-1, SIDE * SIDE * 3], dtype=np.int64)
    names = ["flat", *[f"h{n}" for n in range(len(shapes) - 1)], "logits"]
    steps = zip(names, range(len(shapes)), names[1:], strict=False)
    nodes = [helper.make_node("MatMul", [before, f"w{n}"], [after]) for before, n, after in steps]
    nodes.insert(0, helper.make_node("Reshape", ["crops", "shape"], ["flat"]))
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def test_champions_that_were_replaced_leave_no_memory_behind(tmp_path: Path) -> None:
    known = taxonomy.read()
    classes = known.classes(Target.DIAGNOSIS)
    graph = large_classifier(tmp_path / "large.onnx", len(classes))
    for padding in (0.1, 0.2):
        spec = ClassifierSpec(Target.DIAGNOSIS, classes, input_size=SIDE, crop_padding=padding)
        write_bundle(
            tmp_path / "models",
            name=f"large{round(10 * padding)}",
            taxonomy=known,
            detector=None,
            classifier=(graph, spec),
            lineage={},
        )
    set_champion(tmp_path / "models", bundle(tmp_path).version)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "models"), str(WEIGHTS_MB / 2)]
    subprocess.run(command, check=True, timeout=120)
