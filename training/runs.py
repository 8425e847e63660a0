"""Run folders: one training run each, with its settings, checkpoints and a status that outlives a killed process."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import orjson

from converters.whole import write_whole
from training import config as configs
from training import tracking
from training.config import TrainingConfig
from training.errors import RunError, TrainingError
from training.tracking import Tracker

STATUS = "status.json"
_DISK_SIGNS = ("PytorchStreamWriter", "No space left", "File too large", "Read-only file system")
SETTINGS = "config.toml"


class RunState(StrEnum):
    """Where a run stands; a run found `running` whose process is gone was killed and can be resumed."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What `status.json` says: kind of run, dataset version, process, epochs done, and the last word."""

    run: str
    kind: str
    dataset: str
    state: RunState
    pid: int
    started: str
    updated: str
    done: int = 0
    total: int = 0
    text: str = ""


class Progress(Protocol):
    """Told after each epoch or batch of work: which part, how much of it is done, and a few words."""

    def __call__(self, part: str, done: int, total: int, text: str) -> None:
        """Takes note; must not raise."""


def silent(part: str, done: int, total: int, text: str) -> None:
    """A progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Run:
    """An open run folder; `report` keeps its status file up to date and passes the word on."""

    folder: Path
    status: RunStatus
    watcher: Progress
    now: Callable[[], datetime]
    tracker: Tracker = field(default_factory=lambda: Tracker(()))

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.folder.name

    def report(self, part: str, done: int, total: int, text: str) -> None:
        """Notes progress in the status file and tells the watcher."""
        self._write(replace(self.status, done=done, total=total, text=f"{part}: {text}"))
        self.watcher(part, done, total, text)

    def measure(self, part: str, epoch: int, values: Mapping[str, float]) -> None:
        """Keeps an epoch's figures, named `<part>/<figure>`, wherever the configuration has them tracked."""
        before = self.tracker.lost
        self.tracker.scalars(epoch, {f"{part}/{name}": value for name, value in values.items()})
        if self.tracker.lost != before:
            self.report(part, epoch, epoch, f"tracking goes on without one: {self.tracker.lost}")

    def finish(self, text: str = "") -> None:
        """Notes that the run ended well."""
        self.tracker.close()
        last = read_status(self.folder)
        self._write(replace(last, state=RunState.DONE, text=text or last.text))

    def fail(self, reason: str) -> None:
        """Notes that the run ended badly, and why."""
        self.tracker.close(failed=True)
        self._write(replace(read_status(self.folder), state=RunState.FAILED, text=reason))

    @contextmanager
    def failing(self, again: str = "") -> Iterator[None]:
        """Notes whatever goes wrong inside the block, Ctrl-C too, and says how to go on: `again`, or with --resume.

        A disk that is full or read-only becomes one sentence.
        """
        again = again or f"go on with --resume {self.run_id}"
        try:
            yield
        except KeyboardInterrupt as stop:
            with suppress(OSError):
                self.fail(f"interrupted; {again}")
            raise KeyboardInterrupt(f"{again[:1].upper()}{again[1:]}.") from stop
        except Exception as error:
            found = _disk_error(self.folder, error, again)
            with suppress(OSError):
                self.fail(str(found or error))
            if found is not None:
                raise found from error
            raise

    def _write(self, status: RunStatus) -> None:
        _write_status(self.folder, replace(status, updated=self.now().isoformat()))


def start(
    runs: Path,
    kind: str,
    dataset: str,
    config: TrainingConfig,
    watcher: Progress = silent,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Run:
    """A new run folder named by time, kind and dataset, with its settings written out."""
    moment = now()
    stem = f"{moment:%Y%m%d-%H%M%S}-{kind}-{dataset[:8]}"
    folder = _new_folder(runs, stem)
    (folder / SETTINGS).write_text(configs.encode(config), encoding="utf-8")
    status = RunStatus(
        folder.name, kind, dataset, RunState.RUNNING, os.getpid(), moment.isoformat(), moment.isoformat()
    )
    _write_status(folder, status)
    return Run(folder, status, watcher, now, _tracker(folder, config))


def resume(
    folder: Path, watcher: Progress = silent, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> tuple[Run, TrainingConfig]:
    """A run taken up again with the settings it began with; raises RunError where it is done or still going."""
    status = read_status(folder)
    if status.state is RunState.DONE:
        raise RunError(folder.name, status.state.value, "an unfinished run", "Start a new run.")
    if status.state is RunState.RUNNING and status.pid != os.getpid() and _alive(status.pid):
        raise RunError(folder.name, f"process {status.pid}", "a run whose process ended", "Wait for it, or stop it.")
    status = replace(status, state=RunState.RUNNING, pid=os.getpid(), text="resumed")
    _write_status(folder, status)
    config = configs.read(folder / SETTINGS)
    return Run(folder, status, watcher, now, _tracker(folder, config)), config


def require_same(status: RunStatus, kind: str, dataset: str) -> None:
    """Raises RunError where a run is of another kind or dataset version than the one asked for."""
    if status.kind != kind:
        raise RunError(status.run, f"a run of kind {status.kind}", f"one of kind {kind}", "Name another run.")
    if status.dataset != dataset:
        known, asked = status.dataset[:16], dataset[:16]
        raise RunError(status.run, f"dataset {asked}", f"dataset {known}, that it began with", "Leave --dataset out.")


def note_interruption(folder: Path) -> None:
    """Notes that the process of a run has ended, for one who knows that: in another container numbers mean nothing."""
    status = read_status(folder)
    if status.state is RunState.RUNNING:
        _write_status(folder, replace(status, state=RunState.FAILED, text="interrupted"))


def read_status(folder: Path) -> RunStatus:
    """The status of a run folder; raises RunError where there is none."""
    try:
        row = orjson.loads((folder / STATUS).read_bytes())
        return RunStatus(**{**row, "state": RunState(row["state"])})
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise RunError(str(folder), str(error), f"a run folder with {STATUS}", "Name a run.") from error


def unfinished(runs: Path) -> Iterator[RunStatus]:
    """Runs that failed or whose process is gone, oldest first."""
    for path in sorted(runs.glob(f"*/{STATUS}")):
        status = read_status(path.parent)
        if status.state is RunState.FAILED or (status.state is RunState.RUNNING and not _alive(status.pid)):
            yield status


def _tracker(folder: Path, config: TrainingConfig) -> Tracker:
    """The run's tracker; a place that cannot be reached fails the run before anything is trained."""
    try:
        return tracking.open_tracker(folder, config)
    except TrainingError as error:
        _write_status(folder, replace(read_status(folder), state=RunState.FAILED, text=str(error)))
        raise


def _new_folder(runs: Path, stem: str) -> Path:
    clean = re.sub(r"[^A-Za-z0-9.-]", "-", stem)
    for number in range(1000):
        folder = runs / (clean if number == 0 else f"{clean}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise RunError(str(runs), clean, "a free run name", "Remove old runs.")


def _write_status(folder: Path, status: RunStatus) -> None:
    write_whole(folder / STATUS, orjson.dumps(asdict(status), option=orjson.OPT_INDENT_2))


def _disk_error(folder: Path, error: Exception, again: str) -> RunError | None:
    """What the operating system or torch says of files and disks, in a sentence; None for every other error."""
    words = str(error)
    if not isinstance(error, OSError) and not any(sign in words for sign in _DISK_SIGNS):
        return None
    item, value = f"run {folder.name}", words.splitlines()[0][:200]
    if isinstance(error, FileNotFoundError):
        return RunError(item, value, "all files that it works on", "Restore the file, or start a new run.")
    return RunError(item, value, "room and rights to write", f"Free space or grant rights, then {again}.")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
