"""Speed of the pipeline as served, beside the bare sessions and the usual tools, on the same pictures in one run.

Prints a JSON object a line: `{"bench", "ours", "peer", "limit", "unit", "note"}`. `limit` is what the bare onnxruntime
sessions and the JPEG decoder alone take; `peer` is the usual tool. Needs the train extra for the graphs and the peers.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageFilter

from converters import taxonomy
from converters.taxonomy import Target
from ml_backend.bundle import ClassifierSpec, DetectorSpec, set_champion, write_bundle

CACHE = Path(os.environ.get("DERMLOOP_HOME", ".dermloop")) / "bench" / "serve"
PICTURES = 64
ROUNDS = 3
PORT = 9590


def main() -> None:
    """Runs every line of the bench."""
    graphs = _graphs()
    detect, both = _home("detect", graphs, False), _home("both", graphs, True)
    sessions = Sessions(graphs)
    _batches(detect, both, sessions)
    _large(detect)
    with _served(both) as started:
        _line("serve.start_health", started.health, None, 2.0, "s", "from start to /health 200")
        _line("serve.start_first", started.first, None, 4.0, "s", "from start to the first prediction")
        _single(sessions)
        _concurrency()
        _line("serve.rss", started.memory(), None, 700, "MB", "both models loaded, after all requests above")


class Sessions:
    """The bare sessions, fed with what needs no work: the floor under everything."""

    def __init__(self, graphs: Path) -> None:
        self._detector = _session(graphs / "yolo11n.onnx")
        self._classifier = _session(graphs / "vgg16.onnx")
        self._square = np.full((1, 3, 640, 640), 0.5, dtype=np.float32)
        self._crop = np.full((1, 224, 224, 3), 0.5, dtype=np.float32)

    def detect(self, times: int) -> None:
        """Runs the detector on so many squares, one by one."""
        for _ in range(times):
            self._detector.run(None, {"images": self._square})

    def classify(self, times: int) -> None:
        """Runs the classifier on so many crops, one by one."""
        for _ in range(times):
            self._classifier.run(None, {self._classifier.get_inputs()[0].name: self._crop})

    def threshold(self) -> float:
        """A score that some twenty of the untrained detector's anchors reach, as a trained one's would."""
        scores = self._detector.run(None, {"images": self._square})[0][0, 4:].max(axis=0)
        return float(np.sort(scores)[-20])


class Started:
    """A backend in its own processes, under gunicorn, as `dermloop serve` starts it."""

    def __init__(self, home: Path) -> None:
        command = [sys.executable, "-c", "from ml_backend.cli import app; app()", "serve"]
        self._began = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, "--home", str(home), "--port", str(PORT)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.health = self._until(lambda: _get("/health"))
        self.first = self._until(lambda: _predict(1))

    def _until(self, ask: Callable[[], Any]) -> float:
        while True:
            try:
                ask()
                return time.perf_counter() - self._began
            except OSError:
                time.sleep(0.02)

    def memory(self) -> float:
        """Resident memory of the worker in MB."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        status = Path(f"/proc/{children[0]}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _batches(detect: Path, both: Path, sessions: Sessions) -> None:
    files = sorted((detect / "images").glob("*.jpg"))
    ours: dict[str, list[float]] = {"detect": [], "both": []}
    limit: dict[str, list[float]] = {"detect": [], "classify": [], "decode": []}
    with _application(detect) as one, _application(both) as two:
        for _ in range(ROUNDS):
            ours["detect"].append(_timed(lambda: one(PICTURES)))
            limit["detect"].append(_timed(lambda: sessions.detect(PICTURES)))
            limit["decode"].append(_timed(lambda: [_decoded(path) for path in files]))
            ours["both"].append(_timed(lambda: two(PICTURES)))
            limit["classify"].append(_timed(lambda: sessions.classify(PICTURES)))
    best = {
        name: 1e3 * min(times) / PICTURES for name, times in (ours | {f"bare {k}": v for k, v in limit.items()}).items()
    }
    torch, keras = _peer("ultralytics", detect), _peer("keras", detect)
    floor = best["bare detect"] + best["bare decode"]
    note = f"{PICTURES} JPEGs of 1024×768 in one /predict; target ≤ 1.15 × limit and peer ≥ 2.2 × ours"
    _line("serve.detect_batch", best["detect"], torch, floor, "ms/image", note)
    note = "one crop an image, YOLO11n and VGG16; limit = sum of the bare sessions and decode; target ≤ 1.15 × limit"
    _line("serve.two_stage_batch", best["both"], torch + keras, floor + best["bare classify"], "ms/image", note)


def _large(home: Path) -> None:
    content = _jpeg(6000, 4000, 7)
    (home / "images" / "large.jpeg").write_bytes(content)
    ours, peer = [], []
    with _application(home) as ask:
        for _ in range(2 * ROUNDS + 1):
            ours.append(_timed(lambda: ask(1, "large.jpeg")))
            peer.append(_timed(lambda: _decoded_whole(content)))
    note = "24 megapixels, request to boxes; target ≤ 0.4 × peer"
    _line("serve.large_jpeg", 1e3 * min(ours), 1e3 * min(peer), None, "ms", note)


def _single(sessions: Sessions) -> None:
    ours, bare = [], []
    for _ in range(20):
        ours.append(_timed(lambda: _predict(1)))
        bare.append(_timed(lambda: (sessions.detect(1), sessions.classify(1))))
    over = 1e3 * (statistics.median(ours) - statistics.median(bare))
    note = "median of 20 single-image requests over HTTP, less the bare sessions; includes the JPEG decoder"
    _line("serve.overhead_single", over, None, 8.0, "ms", note)


def _concurrency() -> None:
    for callers in (1, 4, 16):
        calls = max(32 // callers, 2)
        times: list[float] = []
        errors: list[str] = []
        threads = [threading.Thread(target=_call, args=(calls, times, errors)) for _ in range(callers)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = len(times) / (time.perf_counter() - began)
        p50, p95, p99 = (1e3 * float(np.percentile(times, share)) for share in (50, 95, 99))
        note = f"{callers} callers: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms, {len(errors)} errors"
        _line("serve.concurrency", rate, None, None, "images/s", note)


def _call(calls: int, times: list[float], errors: list[str]) -> None:
    for _ in range(calls):
        try:
            times.append(_timed(lambda: _predict(1)))
        except OSError as error:
            errors.append(str(error))


@contextmanager
def _application(home: Path) -> Iterator[Callable[..., None]]:
    """A way to ask the application, in this process, about the first so many pictures."""
    from ml_backend.app import create_app
    from ml_backend.settings import read_settings

    app = create_app(read_settings(home=home))
    client = app.test_client()

    def ask(count: int, name: str | None = None) -> None:
        answer = client.post("/predict", json=_body(count, name))
        assert answer.status_code == 200 and all(entry for entry in answer.json["results"]), answer.json

    ask(1)
    yield ask
    app.extensions["dermloop"].close()


@contextmanager
def _served(home: Path) -> Iterator[Started]:
    started = Started(home)
    try:
        yield started
    finally:
        started.process.terminate()
        started.process.wait()


def _body(count: int, name: str | None = None) -> dict[str, Any]:
    names = [name or f"{number:02}.jpg" for number in range(count)]
    addresses = [f"/data/local-files/?d=images/{file}" for file in names]
    return {"tasks": [{"id": number, "data": {"image": address}} for number, address in enumerate(addresses)]}


def _predict(count: int) -> bytes:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(_address("/predict"), json.dumps(_body(count)).encode(), headers)
    with urllib.request.urlopen(request, timeout=100) as answer:
        return bytes(answer.read())


def _get(path: str) -> bytes:
    with urllib.request.urlopen(_address(path), timeout=5) as answer:
        return bytes(answer.read())


def _address(path: str) -> str:
    return f"http://127.0.0.1:{PORT}{path}"


def _graphs() -> Path:
    folder = CACHE / "graphs"
    folder.mkdir(parents=True, exist_ok=True)
    for what, file in (("detector", "yolo11n.onnx"), ("classifier", "vgg16.onnx")):
        if not (folder / file).is_file():
            command = [sys.executable, "-m", "benchmarks.serve_graphs", what, str(folder.resolve())]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


def _home(name: str, graphs: Path, read: bool) -> Path:
    home = CACHE / name
    (home / "images").mkdir(parents=True, exist_ok=True)
    for number in range(PICTURES):
        (home / "images" / f"{number:02}.jpg").write_bytes(_jpeg(1024, 768, number))
    threshold = Sessions(graphs).threshold()
    spec = ClassifierSpec(Target.SEVERITY, taxonomy.read().classes(Target.SEVERITY))
    written = write_bundle(
        home / "models",
        name=name,
        taxonomy=taxonomy.read(),
        detector=(graphs / "yolo11n.onnx", DetectorSpec(640, score_threshold=threshold, max_detections=1)),
        classifier=(graphs / "vgg16.onnx", spec) if read else None,
        lineage={"weights": "untrained"},
    )
    set_champion(home / "models", written.version)
    return home


def _jpeg(width: int, height: int, seed: int) -> bytes:
    """A picture with skin-like texture, so that the decoder has honest work."""
    noise = np.random.default_rng(seed).integers(90, 230, (height // 16, width // 16, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.SMOOTH)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _decoded_whole(content: bytes) -> None:
    Image.open(io.BytesIO(content)).convert("RGB").resize((640, 427))


def _decoded(path: Path) -> None:
    Image.open(path).load()


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _peer(name: str, home: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.serve_peers", name, str(CACHE / "graphs"), str(home / "images")]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(found.stdout.split()[-1])


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _line(bench: str, ours: float, peer: float | None, limit: float | None, unit: str, note: str) -> None:
    numbers = {"ours": ours, "peer": peer, "limit": limit}
    rounded = {name: None if value is None else round(value, 2) for name, value in numbers.items()}
    print(json.dumps({"bench": bench, **rounded, "unit": unit, "note": note}), flush=True)


if __name__ == "__main__":
    main()
