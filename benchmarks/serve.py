"""Speed of the pipeline as served, beside the bare sessions and the usual tools, on the same pictures in one run.

Prints a JSON object a line: `{"bench", "ours", "peer", "limit", "unit", "note"}`. `limit` is what the bare onnxruntime
sessions and the JPEG decoder alone take; `peer` is the usual tool. All sides of a line take turns for five rounds, and
medians count; ratios are medians over rounds, on the clock and in processor time, which a busy machine leaves as it is.
Needs the train extra for the graphs and the peers.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from serve_sides import Cost, Peer, Rounds, Sessions, Started, application, predict, served, timed

from converters import taxonomy
from converters.taxonomy import Target
from ml_backend.bundle import ClassifierSpec, DetectorSpec, set_champion, write_bundle
from ml_backend.onnx_session import Graph
from ml_backend.pipeline import DETECTOR_BATCH

CACHE = Path(os.environ.get("DERMLOOP_HOME", ".dermloop")) / "bench" / "serve"
PICTURES = 64
CROPS = 16
"""So many pictures where each is read as well, which takes several times as long."""

SINGLES = 25


def main() -> None:
    """Runs every line of the bench."""
    graphs = _graphs()
    detect, both = _home("detect", graphs, False), _home("both", graphs, True)
    sessions = Sessions(graphs)
    _batches(graphs, detect, both, sessions)
    _large(detect)
    _apart(graphs)
    with served(both) as started:
        _line("serve.start_health", started.health, None, 2.0, "s", "from start to /health 200")
        _line("serve.start_first", started.first, None, 4.0, "s", "from start to the first prediction")
        _single(started, sessions)
        _concurrency()
        _line("serve.rss", started.memory(), None, 700, "MB", "both models loaded, after all requests above")


def _batches(graphs: Path, detect: Path, both: Path, sessions: Sessions) -> None:
    files = sorted((detect / "images").glob("*.jpg"))
    torch = Peer("ultralytics", graphs, detect / "images", PICTURES)
    keras = Peer("keras", graphs, detect / "images", CROPS)
    with application(detect) as one, application(both) as two:
        rounds = Rounds(
            {
                "detect": lambda: timed(lambda: one(PICTURES)).each(PICTURES),
                "bare detector": lambda: timed(lambda: sessions.detect(PICTURES)).each(PICTURES),
                "decode": lambda: timed(lambda: [_decoded(path) for path in files]).each(len(files)),
                "torch": torch.once,
                "both": lambda: timed(lambda: two(CROPS)).each(CROPS),
                "bare classifier": lambda: timed(lambda: sessions.classify(CROPS)).each(CROPS),
                "keras": keras.once,
            }
        )
    torch.close()
    keras.close()
    floor = ("bare detector", "decode")
    note = f"{PICTURES} JPEGs of 1024×768 in one /predict; target ≤ 1.15 × limit and peer ≥ 2.2 × ours"
    _batch_line("serve.detect_batch", rounds, "detect", ("torch",), floor, note)
    note = f"{CROPS} pictures, one crop each, YOLO11n, VGG16; limit = bare sessions and decode; target ≤ 1.15 × limit"
    _batch_line("serve.two_stage_batch", rounds, "both", ("torch", "keras"), (*floor, "bare classifier"), note)


def _batch_line(
    bench: str, rounds: Rounds, ours: str, peers: tuple[str, ...], limits: tuple[str, ...], note: str
) -> None:
    costs = [1e3 * rounds.cost(*names).wall for names in ((ours,), peers, limits)]
    by_limit, ahead = rounds.ratio(ours, *limits), 1 / rounds.ratio(ours, *peers).wall
    ahead_cpu = 1 / rounds.ratio(ours, *peers).cpu
    found = f"ours {_both(by_limit)} × limit; peer {ahead:.2f} × ours (processor time {ahead_cpu:.2f})"
    _line(bench, costs[0], costs[1], costs[2], "ms/image", f"{note}; {found}")


def _large(home: Path) -> None:
    content = _jpeg(6000, 4000, 7)
    (home / "images" / "large.jpeg").write_bytes(content)
    with application(home) as ask:
        rounds = Rounds(
            {
                "ours": lambda: timed(lambda: ask(1, "large.jpeg")),
                "peer": lambda: timed(lambda: _decoded_whole(content)),
            },
            rounds=9,
        )
    note = f"24 megapixels, request to boxes; target ≤ 0.4 × peer; ours {_both(rounds.ratio('ours', 'peer'))} × peer"
    _line("serve.large_jpeg", 1e3 * rounds.cost("ours").wall, 1e3 * rounds.cost("peer").wall, None, "ms", note)


def _apart(graphs: Path) -> None:
    """Whether the detector is quicker on a batch's pictures side by side, as they are served, or stacked."""
    graph = Graph(graphs / "yolo11n.onnx", side_by_side=True)
    squares = [_square(number) for number in range(DETECTOR_BATCH)]
    stacked = np.concatenate(squares)
    sides = {
        "apart": lambda: timed(lambda: graph.run_each(squares)).each(DETECTOR_BATCH),
        "stacked": lambda: timed(lambda: graph.run(stacked)).each(DETECTOR_BATCH),
    }
    rounds = Rounds(sides, rounds=15)
    costs = [1e3 * rounds.cost(name).wall for name in sides]
    found = _both(rounds.ratio("stacked", "apart"))
    note = f"{DETECTOR_BATCH} pictures at 640, a thread each; peer = one run over all of them stacked: {found} × ours"
    _line("serve.detector_apart", costs[0], costs[1], None, "ms/image", note)


def _square(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((1, 3, 640, 640), dtype=np.float32)


def _single(started: Started, sessions: Sessions) -> None:
    sides = {
        "request": lambda: started.timed(lambda: predict(1)),
        "bare": lambda: timed(lambda: (sessions.detect(1), sessions.classify(1))),
    }
    over = Rounds(sides, rounds=SINGLES).excess("request", "bare")
    note = (
        f"median over {SINGLES} rounds of a single-image request over HTTP less the bare sessions; includes the JPEG "
        f"decoder; {1e3 * over.cpu:.0f} ms of processor time"
    )
    _line("serve.overhead_single", 1e3 * over.wall, None, 8.0, "ms", note)


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
            times.append(timed(lambda: predict(1)).wall)
        except OSError as error:
            errors.append(str(error))


def _graphs() -> Path:
    folder = CACHE / "graphs"
    folder.mkdir(parents=True, exist_ok=True)
    for what, file in (("detector", "yolo11n.onnx"), ("classifier", "vgg16.onnx")):
        if not (folder / file).is_file():
            maker = str(Path(__file__).with_name("serve_graphs.py"))
            command = [sys.executable, maker, what, str(folder.resolve())]
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


def _both(ratio: Cost) -> str:
    return f"{ratio.wall:.2f} (processor time {ratio.cpu:.2f})"


def _line(bench: str, ours: float, peer: float | None, limit: float | None, unit: str, note: str) -> None:
    numbers = {"ours": ours, "peer": peer, "limit": limit}
    rounded = {name: None if value is None else round(value, 2) for name, value in numbers.items()}
    print(json.dumps({"bench": bench, **rounded, "unit": unit, "note": note}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
