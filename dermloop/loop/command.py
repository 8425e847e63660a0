"""What `dermloop loop` does once its options are read: a stack of its own on free ports, the loop, an orderly end."""

from __future__ import annotations

import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from dermloop.demo import write_demo
from dermloop.demo.files import METADATA
from dermloop.errors import LoopError
from dermloop.home import Home
from dermloop.loop.report import LoopReport
from dermloop.loop.run import Loop, LoopOptions
from dermloop.stack import Stack
from dermloop.stack.ports import free_ports
from dermloop.stack.supervisor import running

_DEMO_SEED = 5
_MARK = "made-by-dermloop-loop"


@dataclass(frozen=True, slots=True)
class LoopRequest:
    """The command's options; without `images` synthetic ones are drawn."""

    images: Path | None = None
    truth: Path | None = None
    limit: int | None = None
    home: Path | None = None
    demo_count: int = 90
    seed: int = 7
    fresh: bool = True


def play(request: LoopRequest) -> bool:
    """Whether every stage of the loop held; the stack is stopped whatever happens.

    Raises LoopError where images come without truth, and the errors of the stages.
    """
    home = Home.at(request.home) if request.home else Home(Home.at().root / "loop")
    if request.fresh:
        begin_afresh(home)
    home.root.mkdir(parents=True, exist_ok=True)
    (home.root / _MARK).touch()
    images, truth = material(request, home)
    options = LoopOptions(images, truth, request.limit, request.seed)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with Stack.open(home.root, free_ports(), say) as stack:
        service = stack.open_review()
        try:
            return Loop(stack, service, options, LoopReport(), say).run()
        finally:
            service.close()


def begin_afresh(home: Home) -> None:
    """Empties the home of an earlier loop; the first model comes from the cache again.

    Raises LoopError where the home is running, or is not a loop's own folder.
    """
    if running(home):
        raise LoopError(str(home.root), "a running stack", "a stopped one", f"Run `dermloop down --home {home.root}`.")
    if not home.root.is_dir():
        return
    if any(home.root.iterdir()) and not (home.root / _MARK).is_file():
        cure = "Name an empty folder with --home, or go on with what is there with --no-fresh."
        raise LoopError(str(home.root), "a folder that no loop made", "a loop's own folder", cure)
    shutil.rmtree(home.root)


def say(sentence: str) -> None:
    """Tells a step on standard error."""
    print(sentence, file=sys.stderr, flush=True)


def material(request: LoopRequest, home: Home) -> tuple[Path, Path]:
    """The folder and the table to play with, drawn first where none are named; raises LoopError for half a pair."""
    if request.images is None:
        if request.truth is not None:
            raise LoopError("--truth", request.truth, "--images with it", "Name the folder of the images too.")
        table = home.demo / METADATA
        if not table.is_file():
            say(f"Drawing {request.demo_count} synthetic images")
            write_demo(home.demo, request.demo_count, _DEMO_SEED)
        return home.demo, table
    if not request.images.is_dir():
        raise LoopError("--images", request.images, "a folder of JPEG or PNG files", "Name another one.")
    beside = request.images / METADATA
    truth = request.truth or (beside if beside.is_file() else request.images.parent / METADATA)
    if not truth.is_file():
        raise LoopError("--truth", truth, "a metadata table with boxes", "Name it with --truth.")
    return request.images, truth
