"""A deliberately worse candidate, to prove now and then that the gate refuses one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ml_backend import bundle as bundles
from ml_backend.bundle import ModelBundle
from training.errors import MissingExtraError


def worse_candidate(bundle: ModelBundle, models: Path, seed: int = 0) -> ModelBundle:
    """A bundle whose graphs are the given one's with noise of the weights' own size added to every weight.

    It is written beside the others and says in its lineage what it is. The same seed gives the same version.
    """
    with tempfile.TemporaryDirectory() as folder:
        detector, classifier = bundle.detector, bundle.classifier
        spoilt = Path(folder)
        return bundles.write_bundle(
            models,
            name=f"{bundle.name}-worse",
            taxonomy=bundle.taxonomy,
            detector=(_spoil(bundle.detector_path, spoilt / "d.onnx", seed), detector) if detector else None,
            classifier=(_spoil(bundle.classifier_path, spoilt / "c.onnx", seed), classifier) if classifier else None,
            lineage={"parent": bundle.version, "purpose": "deliberately worse, to test the gate"},
        )


def _spoil(source: Path, target: Path, seed: int) -> Path:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError("onnx", str(error), "the train extra", "Run `pip install dermloop[train]`.") from error
    model = onnx.load(source)
    generator = np.random.default_rng(seed)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.ndim >= 2:
            noisy = values + generator.normal(0, float(values.std()) or 1.0, values.shape)
            weight.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), weight.name))
    onnx.save(model, target)
    return target
