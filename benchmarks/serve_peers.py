"""What the usual tools take for the same pictures: ultralytics on torch, and Keras.

Works once for each line on standard input and answers with `{"wall", "cpu"}` in seconds a picture; the first run is to
warm up.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

Work = Callable[[], object]


def ultralytics(folder: Path, pictures: list[str]) -> Work:
    """`YOLO.predict` over the files, as its users call it."""
    os.environ["YOLO_OFFLINE"] = "1"
    from ultralytics import YOLO

    model = YOLO(str(folder / "yolo11n.pt"))
    return lambda: list(model.predict(pictures, imgsz=640, verbose=False, device="cpu", stream=True))


def keras(folder: Path, pictures: list[str]) -> Work:
    """`Model.predict` on as many crops as there are pictures, in batches of eight."""
    import keras as library
    import numpy as np

    model = library.saving.load_model(folder / "vgg16.keras")
    crops = np.random.default_rng(0).random((len(pictures), 224, 224, 3), dtype=np.float32)
    return lambda: model.predict(crops, batch_size=8, verbose=0)


def main() -> None:
    """Works whenever it is asked to."""
    files = [str(path) for path in sorted(Path(sys.argv[3]).glob("*.jpg"))][: int(sys.argv[4])]
    work = {"ultralytics": ultralytics, "keras": keras}[sys.argv[1]](Path(sys.argv[2]), files)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({name: seconds / len(files) for name, seconds in took.items()}), flush=True)


if __name__ == "__main__":
    main()
