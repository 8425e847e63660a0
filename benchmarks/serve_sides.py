"""The sides of the serving bench, measured in turns: wall time and processor time of each, round after round."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

PORT = 9590
_PAUSE = 0.2
"""Seconds between two sides: threads of the one that ended still watch for work for a moment."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took: seconds on the clock, and seconds of all processors."""

    wall: float
    cpu: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def each(self, pictures: int) -> Cost:
        """The same for one of so many pictures."""
        return Cost(self.wall / pictures, self.cpu / pictures)


Side = Callable[[], Cost]


class Rounds:
    """Costs by side, one for each round, so that what disturbed a round disturbed all its sides."""

    def __init__(self, sides: Mapping[str, Side], rounds: int = 5) -> None:
        self._costs: dict[str, list[Cost]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                time.sleep(_PAUSE)
                self._costs[name].append(side())

    def cost(self, *names: str) -> Cost:
        """The median cost of sides that are done one after another."""
        found = self._sums(names)
        return Cost(statistics.median(one.wall for one in found), statistics.median(one.cpu for one in found))

    def ratio(self, name: str, *others: str) -> Cost:
        """The median over rounds of one side's cost by that of others together."""
        pairs = list(zip(self._costs[name], self._sums(others), strict=True))
        walls, cpus = ([getattr(one, kind) / getattr(other, kind) for one, other in pairs] for kind in ("wall", "cpu"))
        return Cost(statistics.median(walls), statistics.median(cpus))

    def excess(self, name: str, other: str) -> Cost:
        """The median over rounds of what one side costs more than another."""
        pairs = list(zip(self._costs[name], self._costs[other], strict=True))
        walls, cpus = ([getattr(one, kind) - getattr(other, kind) for one, other in pairs] for kind in ("wall", "cpu"))
        return Cost(statistics.median(walls), statistics.median(cpus))

    def _sums(self, names: tuple[str, ...]) -> list[Cost]:
        return [sum(costs, Cost(0.0, 0.0)) for costs in zip(*(self._costs[name] for name in names), strict=True)]


def timed(work: Callable[[], object]) -> Cost:
    """What some work in this process takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


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


class Peer:
    """A usual tool in a process of its own, warm, which does its work once each time it is asked."""

    def __init__(self, name: str, graphs: Path, images: Path, pictures: int) -> None:
        program = str(Path(__file__).with_name("serve_peers.py"))
        command = [sys.executable, program, name, str(graphs), str(images), str(pictures)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.once()

    def once(self) -> Cost:
        """What one picture took in a run over all, as the tool's own process measured it."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("again\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return Cost(**json.loads(line))
        raise RuntimeError("the peer ended: is the train extra installed?")

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Started:
    """A backend in its own processes, under gunicorn, as `dermloop serve` starts it."""

    def __init__(self, home: Path) -> None:
        command = [sys.executable, "-c", "from ml_backend.cli import app; app()", "serve"]
        self._began = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, "--home", str(home), "--port", str(PORT)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.health = self._until(lambda: get("/health"))
        self.first = self._until(lambda: predict(1))

    def memory(self) -> float:
        """Resident memory of the worker in MB."""
        status = (self._worker() / "status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def timed(self, work: Callable[[], object]) -> Cost:
        """What some work takes on the clock here, and the worker in processor time."""
        cpu = self._cpu()
        cost = timed(work)
        return Cost(cost.wall, self._cpu() - cpu)

    def _until(self, ask: Callable[[], Any]) -> float:
        while True:
            try:
                ask()
                return time.perf_counter() - self._began
            except OSError:
                time.sleep(0.02)

    def _worker(self) -> Path:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return Path(f"/proc/{children[0]}")

    def _cpu(self) -> float:
        ticks = (self._worker() / "stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(home: Path) -> Iterator[Started]:
    """A started backend, ended afterwards."""
    started = Started(home)
    try:
        yield started
    finally:
        started.process.terminate()
        started.process.wait()


@contextmanager
def application(home: Path) -> Iterator[Callable[..., None]]:
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


def predict(count: int) -> bytes:
    """The served backend's answer about the first so many pictures."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(_address("/predict"), json.dumps(_body(count)).encode(), headers)
    with urllib.request.urlopen(request, timeout=100) as answer:
        return bytes(answer.read())


def get(path: str) -> bytes:
    """The served backend's answer at a path."""
    with urllib.request.urlopen(_address(path), timeout=5) as answer:
        return bytes(answer.read())


def _body(count: int, name: str | None = None) -> dict[str, Any]:
    names = [name or f"{number:02}.jpg" for number in range(count)]
    addresses = [f"/data/local-files/?d=images/{file}" for file in names]
    return {"tasks": [{"id": number, "data": {"image": address}} for number, address in enumerate(addresses)]}


def _address(path: str) -> str:
    return f"http://127.0.0.1:{PORT}{path}"


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
