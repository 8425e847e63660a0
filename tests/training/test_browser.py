"""The graphs that are served answer alike in a real browser, and what fails there is told in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders_serving import bundle
from builders_training import served_version

from converters.dataset import Split
from training import browser, export, toolbox
from training.errors import ToolError

pytestmark = pytest.mark.e2e


def test_both_graphs_answer_in_chromium_as_they_do_when_served(tmp_path: Path) -> None:
    one, version = bundle(tmp_path, segment=True), served_version(tmp_path)
    golden = export.golden_images(one, version)
    assert golden.squares is not None
    assert len(golden.crops) == len(version.dataset.only(Split.TEST)) - 1
    form, target = export.Form.ONNX_WEB, tmp_path / "web"
    made = export.export_form(one, form, target, golden, None, toolbox.tools_folder())
    assert made.gap <= made.tolerance
    names = {path.name for path in target.iterdir()}
    assert {"classifier.onnx", "detector.onnx", "ort.wasm.min.js", "ort-wasm-simd-threaded.wasm"} <= names


def test_a_broken_graph_is_told_in_the_pages_own_words(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    files = {path.name: path for path in toolbox.npm_files(toolbox.ONNXRUNTIME_WEB, toolbox.tools_folder())}
    with pytest.raises(ToolError, match=r"onnx in the browser.*protobuf"):
        browser.answer("onnx", {**files, "model.onnx": tmp_path / "model.onnx"}, np.zeros((1, 2), np.float32))
