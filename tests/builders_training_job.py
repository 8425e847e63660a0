"""A training job's folder as SageMaker lays it out below /opt/ml, and its container as a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from converters.dataset import DatasetVersion
from training import config as configs
from training.config import ClassifierConfig, DetectorConfig, TrainingConfig

ROOT = Path(__file__).parents[1]


def tiny(epochs: int = 2) -> TrainingConfig:
    """Settings of a training of seconds."""
    return replace(
        configs.recipe("first"),
        detector=DetectorConfig(image_size=64, epochs=epochs, batch=4, weights="scratch", validate_each_epoch=False),
        classifier=ClassifierConfig(
            image_size=32, epochs=epochs, batch=4, weights="scratch", precision="float32", backbone="VGG16"
        ),
    )


def laid_out(root: Path, version: DatasetVersion, given: Mapping[str, str], config: TrainingConfig) -> Path:
    """The folder with a job's inputs."""
    (root / "input" / "config").mkdir(parents=True, exist_ok=True)
    (root / "input" / "config" / "hyperparameters.json").write_text(json.dumps(dict(given)))
    (root / "input" / "data" / "config").mkdir(parents=True, exist_ok=True)
    (root / "input" / "data" / "config" / "config.toml").write_text(configs.encode(config))
    shutil.copytree(version.root, root / "input" / "data" / "dataset", dirs_exist_ok=True)
    return root


def container(root: Path) -> subprocess.Popen[str]:
    """The container's entry point, started on a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    environment |= {"DERMLOOP_ML_PREFIX": str(root), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "training.sagemaker", "train"],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
