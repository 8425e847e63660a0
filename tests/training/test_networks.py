"""The small network and the reading in all symmetries, as they are served."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.taxonomy import Target
from ml_backend.bundle import Scaling
from ml_backend.onnx_session import Graph
from training.errors import ConfigError
from training.networks import NetworkPlan

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]


def plan(symmetries: bool = False, size: int = 32) -> NetworkPlan:
    return NetworkPlan("Compact", Target.SEVERITY, ("low", "moderate", "high"), size, False, Scaling.SIGNED, symmetries)


@pytest.fixture(scope="module")
def model() -> Any:
    from training import networks

    networks.keras_library().utils.set_random_seed(0)
    found, _ = networks.build(plan(), None, 0.0)
    return found


def test_the_reading_of_all_symmetries_is_their_mean_and_the_same_for_each(model: Any, tmp_path: Path) -> None:
    from training import networks, served_graph

    crops = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype(np.uint8)
    path, parity = served_graph.export(plan(symmetries=True), model, tmp_path / "all.onnx", crops, 1e-3)
    assert parity < 1e-3
    batch = crops.astype(np.float32) / 127.5 - 1
    views = [
        view[:, ::up, ::left] for view in (batch, batch.transpose(0, 2, 1, 3)) for up in (1, -1) for left in (1, -1)
    ]
    single = networks.serving_graph(plan(), model)
    wanted = np.mean([single.predict(np.ascontiguousarray(view), verbose=0)[0] for view in views], axis=0)
    logits, cam = Graph(path).run(batch)
    assert logits == pytest.approx(wanted, abs=1e-3)
    turned_logits, turned_cam = Graph(path).run(np.ascontiguousarray(batch.transpose(0, 2, 1, 3)[:, ::-1]))
    assert turned_logits == pytest.approx(logits, abs=1e-3)
    assert turned_cam == pytest.approx(
        cam.transpose(0, 2, 1, 3)[:, ::-1] if cam.shape[-1] == 3 else turned_cam, abs=1e-3
    )


def test_a_spatial_transformer_starts_as_the_identity_and_is_served_in_all_symmetries_as_it_learnt(
    tmp_path: Path,
) -> None:
    import keras

    from training import networks, served_graph

    shape = replace(plan(symmetries=True), backbone="MobileNetV2STN")
    model, _ = networks.build(shape, None, 0.0)
    crops = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype(np.uint8)
    batch = crops.astype(np.float32) / 127.5 - 1
    seen = keras.Model(model.input, model.get_layer("sampler").output)
    assert seen.predict(batch, verbose=0) == pytest.approx(batch, abs=1e-5)
    model.get_layer("locate_map").bias.assign([-10.0, 10.0, 0.0, -10.0, -10.0, 0.0])  # a quarter turn
    assert seen.predict(batch, verbose=0) == pytest.approx(batch.transpose(0, 2, 1, 3)[:, :, ::-1], abs=1e-5)
    _, parity = served_graph.export(shape, model, tmp_path / "stn.onnx", crops, 1e-4)
    assert parity < 1e-4


def test_only_the_top_layers_learn_once_the_head_has_on_weights_learnt_elsewhere() -> None:
    from training import classifier, networks

    model, backbone = networks.build(replace(plan(), backbone="MobileNetV2STN"), None, 0.0)
    classifier._freeze(backbone, 50, whole=True)
    assert {one.path.split("/")[0] for one in model.trainable_variables} == {"head"}
    classifier._freeze(backbone, 50, whole=False)
    assert [layer.trainable for layer in backbone.layers] == [False] * (len(backbone.layers) - 50) + [True] * 50


def test_an_export_folds_batch_normalisation_into_the_convolutions(tmp_path: Path) -> None:
    import onnx

    from training import networks, served_graph

    shape = NetworkPlan("VGG16", Target.SEVERITY, ("low", "high"), 32, True, Scaling.SIGNED, False)
    model, _ = networks.build(shape, None, 0.0)
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if "moving" in weight.path:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    crops = generator.integers(0, 255, (2, 32, 32, 3)).astype(np.uint8)
    path, parity = served_graph.export(shape, model, tmp_path / "vgg.onnx", crops, 1e-4)
    graph = onnx.load(path)
    assert parity < 1e-4
    assert {node.op_type for node in graph.graph.node} == {
        "Conv",
        "Relu",
        "MaxPool",
        "Transpose",
        "GlobalAveragePool",
        "Squeeze",
    }
    assert [one.domain for one in graph.opset_import] == [""]
    assert [one.name for one in graph.graph.input] == ["pictures"]


def test_the_small_network_wants_sides_that_its_stages_divide() -> None:
    from training import networks

    with pytest.raises(ConfigError, match="multiple of 16"):
        networks.build(plan(size=40), None, 0.0)


def test_torch_and_its_compiler_load_after_keras_too() -> None:
    code = "from training import networks; networks.keras_library(); import torch._inductor.standalone_compile"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
