"""What the usual tools take for the same pictures: ultralytics on torch, and Keras. Prints ms an image."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def ultralytics(folder: Path, pictures: list[str]) -> float:
    """Milliseconds an image of `YOLO.predict` over the files."""
    os.environ["YOLO_OFFLINE"] = "1"
    from ultralytics import YOLO

    model = YOLO(str(folder / "yolo11n.pt"))
    model.predict(pictures[:2], imgsz=640, verbose=False, device="cpu")
    began = time.perf_counter()
    for _ in model.predict(pictures, imgsz=640, verbose=False, device="cpu", stream=True):
        pass
    return 1e3 * (time.perf_counter() - began) / len(pictures)


def keras(folder: Path, pictures: list[str]) -> float:
    """Milliseconds a crop of `Model.predict` on batches of as many crops as there are pictures."""
    import keras as library
    import numpy as np

    model = library.saving.load_model(folder / "vgg16.keras")
    crops = np.random.default_rng(0).random((len(pictures), 224, 224, 3), dtype=np.float32)
    model.predict(crops[:8], batch_size=8, verbose=0)
    began = time.perf_counter()
    model.predict(crops, batch_size=8, verbose=0)
    return 1e3 * (time.perf_counter() - began) / len(pictures)


if __name__ == "__main__":
    files = [str(path) for path in sorted(Path(sys.argv[3]).glob("*.jpg"))]
    print({"ultralytics": ultralytics, "keras": keras}[sys.argv[1]](Path(sys.argv[2]), files))
