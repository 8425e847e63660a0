"""What the commands of the local stack do, once their options are read."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from rich.console import Console

from converters.annotation import ImageRecord
from converters.whole import write_whole
from dermloop import console as shown
from dermloop.console import Steps
from dermloop.errors import DermloopError, StartError
from dermloop.home import Home
from dermloop.ingest import ingest
from dermloop.stack import Ports, Stack, supervisor
from dermloop.stack.environment import addresses
from dermloop.stack.programs import BACKEND, LABEL_STUDIO, REVIEW, WORKER

if TYPE_CHECKING:
    from dermloop.up import UpOptions
    from review_workflow.service import ReviewService

_READY_SECONDS = 1800.0
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(home: Path | None, ports: Ports, options: UpOptions, detach: bool) -> None:
    """Runs the stack until interrupted, or until it is ready where `detach`."""
    if detach:
        _detached(Home.at(home))
        return
    from dermloop.up import bring_up

    console = Console()
    steps = Steps(console)
    with _interrupts() as stopping:
        stack = Stack.open(home, ports, steps.say)
        try:
            stack.start()
            stack.home.ready_file.unlink(missing_ok=True)
            bring_up(stack, options, steps.say, steps.progress)
            steps.end()
            _write_ready(stack)
            _show(console, stack)
            stack.watch(stopping)
        except KeyboardInterrupt:
            steps.end()
            console.print()
        finally:
            steps.end()
            if stack.running:
                steps.say("Stopping all programs")
                stack.home.ready_file.unlink(missing_ok=True)
                stack.stop()
                steps.end()


def down(home: Path | None) -> None:
    """Stops the programs of a home and returns when they have ended."""
    place = Home.at(home)
    found = supervisor.running(place)
    if not found:
        print(f"Nothing is running on {place.root}.")
        return
    owner = found.pop(supervisor.SUPERVISOR, None)
    if owner is not None:
        supervisor.end_processes([owner], patience=30)
    supervisor.end_processes(supervisor.running(place).values())
    place.run_file.unlink(missing_ok=True)
    print(f"Stopped {', '.join(found)}.")


def status(home: Path | None, as_json: bool) -> None:
    """Prints which programs run and how far the review is."""
    place = Home.at(home)
    found = supervisor.running(place)
    ready = addresses(place)
    rows = {name: found.get(name) for name in (LABEL_STUDIO, BACKEND, REVIEW, WORKER)}
    states = _review_states(place)
    if as_json:
        print(orjson.dumps({"home": str(place.root), "programs": rows, "addresses": ready, "images": states}).decode())
        return
    print(f"home      {place.root}")
    for name, pid in rows.items():
        print(f"{name:<13} {'process ' + str(pid) if pid else 'not running':<18} {ready.get(name, '')}")
    print("images    " + (", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none yet"))


def logs(home: Path | None, program: str, lines: int) -> None:
    """Prints the last lines of one log or of all; raises DermloopError for an unknown program."""
    place = Home.at(home)
    found = {path.stem: path for path in sorted(place.logs.glob("*.log"))}
    if program and program not in found:
        raise DermloopError("log", program, f"one of {', '.join(found) or 'none yet'}", "Name one of these.")
    for name, path in found.items():
        if program in ("", name):
            print(f"== {path}{supervisor.last_lines(path, lines)}")


def ingest_folder(
    images: Path, metadata: Path | None, home: Path | None, limit: int | None, strict: bool, as_json: bool
) -> None:
    """Takes a folder in and registers its images; the running stack hands them out by itself."""
    place = Home.at(home)
    steps = Steps(Console(stderr=True))

    def register(records: Sequence[ImageRecord]) -> int:
        with _review(place) as service:
            return service.register(records)

    try:
        report = ingest(
            images, place, metadata, register, limit, lambda done, total: steps.progress("Taking", done, total)
        )
    finally:
        steps.end()
    if as_json:
        counts = {"images": len(report.records), "stored": report.stored, "registered": report.registered}
        entries = {kind: [asdict(entry) for entry in getattr(report, kind)] for kind in ("skipped", "notes")}
        print(json.dumps({**counts, **entries}, ensure_ascii=False))
    else:
        print(f"{len(report.records)} images in the home, {report.stored} stored now, {report.registered} registered.")
        if report.skipped or report.notes:
            Console().print(shown.left_out(report))
    if strict and report.skipped:
        raise DermloopError(str(images), f"{len(report.skipped)} entries left out", "none with --strict", "See above.")


def draw(folder: Path, count: int, seed: int, size: int, as_json: bool) -> None:
    """Writes synthetic pictures."""
    from dermloop.demo import DemoOptions, write_demo

    steps = Steps(Console(stderr=True))
    told = lambda done, total: steps.progress("Drawing", done, total)  # noqa: E731
    table = write_demo(folder, count, seed, DemoOptions(size=size), told)
    steps.end()
    print(json.dumps({"images": count, "metadata": str(table)}) if as_json else f"{count} pictures and {table}")


def freeze_approved(home: Path | None, as_json: bool) -> None:
    """Freezes what is approved and prints the version."""
    from converters import taxonomy
    from converters.annotation import TruthLevel
    from dermloop.freeze import freeze
    from dermloop.retraining import read_config

    place = Home.at(home)
    with _review(place) as service:
        test_truth = TruthLevel[read_config(place).dataset.test_truth.upper()]
        report = freeze(service.approved(), place.root, taxonomy.read(), test_truth=test_truth)
    splits = dict(report.splits)
    counts = {"version": report.version.digest, "images": report.images, "lesions": report.lesions, "splits": splits}
    if as_json:
        print(json.dumps({**counts, "folder": str(report.version.root), "ambiguous": list(report.ambiguous)}))
    else:
        print(f"{report.version.root}: {report.images} images, {report.lesions} lesions, {splits}")


def _show(console: Console, stack: Stack) -> None:
    console.print()
    console.print(shown.addresses(_addresses(stack).items()))
    console.print()
    console.print(shown.logins(stack.people))
    console.print()
    console.print(
        f"{shown.DISCLAIMER} Logs: {stack.home.logs}. Ctrl-C stops all; the next start goes on from here.",
        soft_wrap=True,
    )


def _addresses(stack: Stack) -> dict[str, str]:
    return {LABEL_STUDIO: stack.label_studio_url, BACKEND: stack.backend_url, REVIEW: stack.review_url}


def _write_ready(stack: Stack) -> None:
    write_whole(stack.home.ready_file, json.dumps(_addresses(stack)).encode())


def _review_states(place: Home) -> dict[str, int]:
    if not place.review_db.is_file():
        return {}
    with _review(place) as service:
        return dict(service.states())


@contextlib.contextmanager
def _review(place: Home) -> Iterator[ReviewService]:
    """The review of a home, for as long as it is needed; imported late, since it brings the database and the SDK."""
    from review_workflow.service import open_service
    from review_workflow.settings import read

    place.create()
    service = open_service(read(home=place.root))
    try:
        yield service
    finally:
        service.close()


def _detached(place: Home) -> None:
    """Starts `dermloop up` with the same options in the background and passes its words on until it is ready."""
    supervisor.require_idle(place)
    place.create()
    place.ready_file.unlink(missing_ok=True)
    log = place.logs / "up.log"
    command = [sys.executable, "-m", "dermloop", *(option for option in sys.argv[1:] if option != "--detach")]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + _READY_SECONDS
    with log.open(encoding="utf-8", errors="replace") as words:
        while not addresses(place) and process.poll() is None and time.monotonic() < deadline:
            sys.stdout.write(words.read())
            sys.stdout.flush()
            time.sleep(0.3)
        time.sleep(0.3)
        sys.stdout.write(words.read())
    if process.poll() is not None:
        raise StartError("dermloop up", f"ended with {process.returncode}", "a running stack", f"Look into {log}.")


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether somebody asked to stop. SIGTERM and a closed terminal interrupt as Ctrl-C does."""
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            return
        asked.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in _STOPPING}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
