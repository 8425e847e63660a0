"""Child processes: started in groups of their own, waited for, restarted with back-off, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from converters.whole import write_whole
from dermloop.errors import RunningError, StartError
from dermloop.home import Home
from dermloop.stack.programs import Program

Say = Callable[[str], None]
SUPERVISOR = "supervisor"
_FIRST_PAUSE, _LONGEST_PAUSE, _CALM = 1.0, 30.0, 60.0
_MOST_DEATHS = 6
_GRACE = 12.0
_LARGE_LOG = 20_000_000


@dataclass(slots=True)
class Child:
    """A started program."""

    program: Program
    process: subprocess.Popen[bytes]
    log: Path
    started: float
    deaths: int = 0
    retry_at: float | None = None


@dataclass(slots=True)
class Supervisor:
    """The running programs of one home folder; their process ids are on file, so that a crash leaves no strays."""

    home: Home
    say: Say
    children: dict[str, Child] = field(default_factory=dict)
    claimed: bool = False

    def claim(self) -> None:
        """Makes this process the one that runs the home's programs, and ends strays of a run that was killed.

        Raises RunningError where another process runs them.
        """
        require_idle(self.home)
        recorded = running(self.home)
        recorded.pop(SUPERVISOR, None)
        if recorded:
            self.say(f"Ending {', '.join(recorded)}, left over from a run that was killed")
        end_processes(recorded.values())
        self.claimed = True
        self._record()

    def start(self, program: Program) -> None:
        """Starts a program; use `wait_ready` to learn whether it came up."""
        log = self.home.logs / f"{program.name}.log"
        if log.exists() and log.stat().st_size > _LARGE_LOG:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as stream:
            process = subprocess.Popen(
                program.command,
                env=dict(program.environment),
                cwd=self.home.root,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.children[program.name] = Child(program, process, log, time.monotonic())
        self._record()

    def wait_ready(self, name: str) -> None:
        """Returns once the program answers; raises StartError with its last words where it ends or takes too long."""
        child = self.children[name]
        deadline = child.started + child.program.patience
        while not _answers(child):
            if child.process.poll() is not None:
                raise _start_error(child, f"stopped with exit status {child.process.returncode}")
            if time.monotonic() > deadline:
                raise _start_error(child, f"did not answer within {child.program.patience:.0f} s")
            time.sleep(0.15)

    def alive(self, name: str) -> bool:
        """Whether the program's process is running."""
        return name in self.children and self.children[name].process.poll() is None

    def kill(self, name: str) -> None:
        """Ends a program at once, as `kill -9` would; nothing restarts it until `start` or `tend`."""
        child = self.children[name]
        _signal_group(child.process.pid, signal.SIGKILL)
        child.process.wait()

    def stop(self, names: Iterable[str] | None = None) -> None:
        """Ends the programs in the reverse order of their start: asked first, forced after a while."""
        wanted = [name for name in reversed(self.children) if names is None or name in set(names)]
        end_processes([self.children[name].process.pid for name in wanted])
        for name in wanted:
            self.children.pop(name).process.wait()
        self._record()

    def release(self) -> None:
        """Stops everything and takes the home's record away; a home that another process runs stays as it is."""
        if self.claimed:
            self.stop()
            self.home.run_file.unlink(missing_ok=True)
            self.claimed = False

    def tend(self) -> None:
        """Looks after the programs once: one that died is named and started again, after a growing pause.

        Raises StartError where one keeps dying.
        """
        now = time.monotonic()
        for name, child in list(self.children.items()):
            if child.process.poll() is None:
                if child.deaths and now - child.started > _CALM:
                    child.deaths = 0
            elif child.retry_at is None:
                self._mourn(child, now)
            elif now >= child.retry_at:
                self.say(f"Starting {child.program.title} again")
                self.start(child.program)
                self.children[name].deaths = child.deaths

    def _mourn(self, child: Child, now: float) -> None:
        child.deaths += 1
        if child.deaths >= _MOST_DEATHS:
            raise _start_error(child, f"died {child.deaths} times in a row")
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (child.deaths - 1))
        child.retry_at = now + pause
        words = last_lines(child.log, 3)
        fate = f"died (exit status {child.process.returncode}); it starts again in {pause:.0f} s."
        self.say(f"{child.program.title} {fate}{words}")

    def _record(self) -> None:
        pids = {SUPERVISOR: os.getpid()} | {name: child.process.pid for name, child in self.children.items()}
        rows = {name: {"pid": pid, "created": _created(pid)} for name, pid in pids.items()}
        write_whole(self.home.run_file, json.dumps(rows, indent=1).encode())


def require_idle(home: Home) -> None:
    """Raises RunningError where another process runs the home's programs."""
    owner = running(home).get(SUPERVISOR)
    if owner is not None and owner != os.getpid():
        cure = "Stop it with `dermloop down`, or choose another --home."
        raise RunningError(str(home.root), f"in use by process {owner}", "a home that is not running", cure)


def running(home: Home) -> dict[str, int]:
    """Process ids by program name, of those on the home's record that are still the same living processes."""
    try:
        rows = json.loads(home.run_file.read_text(encoding="utf-8"))
        return {name: row["pid"] for name, row in rows.items() if row["created"] and _same(row["pid"], row["created"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def end_processes(pids: Iterable[int], patience: float = _GRACE) -> None:
    """Ends processes and all their descendants: asked first, forced after a while."""
    leaders = [process for pid in pids if (process := _process(pid)) is not None]
    family = [*leaders, *(child for leader in leaders for child in _descendants(leader))]
    for leader in leaders:
        _signal_group(leader.pid, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(family, timeout=patience)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5)


def last_lines(log: Path, count: int) -> str:
    """The last lines of a log in one string, for a message."""
    try:
        with log.open(encoding="utf-8", errors="replace") as stream:
            lines = deque((line.rstrip() for line in stream if line.strip()), maxlen=count)
    except OSError:
        return ""
    return "\n".join(("", *(f"  {line[:300]}" for line in lines)))


def _start_error(child: Child, fate: str) -> StartError:
    value = f"{fate}. Its last words:{last_lines(child.log, 8)}\n"
    cure = f"The whole log is {child.log}; mend the cause and start again."
    return StartError(child.program.title, value, "a running program", cure)


def _answers(child: Child) -> bool:
    if child.program.health_url is None:
        return time.monotonic() - child.started > 1.0 and child.process.poll() is None
    try:
        with urllib.request.urlopen(child.program.health_url, timeout=3) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _created(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _same(pid: int, created: float) -> bool:
    found = _created(pid)
    return found is not None and abs(found - created) < 0.05 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
