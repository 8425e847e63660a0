"""The parts of the local stack, with real sockets, real files and real child processes."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dermloop.errors import PortError, RunningError, SecretsError, StartError
from dermloop.home import Home
from dermloop.stack import Ports, free_ports, supervisor
from dermloop.stack.programs import LABEL_STUDIO, Program, programs
from dermloop.stack.secrets import open_secrets
from dermloop.stack.supervisor import Supervisor
from review_workflow.people import Role

SLEEPER = "import time; time.sleep(600)"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    place = Home(tmp_path / "home")
    place.create()
    return place


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def children(home: Home, said: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(home, said.append)
    yield supervisor
    supervisor.stop()


def python(name: str, code: str, patience: float = 20.0, health_url: str | None = None) -> Program:
    return Program(name, name.title(), (sys.executable, "-c", code), dict(os.environ), health_url, patience)


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def test_a_taken_port_is_one_sentence_with_its_holder_and_the_way_out() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(PortError) as caught:
            Ports(port, *[free_ports().backend, free_ports().review]).require_free()
    assert f"port {port}: taken by" in str(caught.value)
    assert f"(process {os.getpid()})" in str(caught.value)
    assert f"--port-label-studio {port + 1}" in str(caught.value)


@pytest.mark.parametrize(
    ("ports", "words"), [(Ports(0, 1, 2), "a port number"), (Ports(18290, 18290, 1), "a port for each")]
)
def test_impossible_ports_are_named(ports: Ports, words: str) -> None:
    with pytest.raises(PortError, match=words):
        ports.require_free()


def test_free_ports_are_free_and_different() -> None:
    ports = free_ports()
    ports.require_free()
    assert len({ports.label_studio, ports.backend, ports.review}) == 3


def test_secrets_are_made_once_and_only_their_owner_reads_them(home: Home) -> None:
    made = open_secrets(home.secrets)
    assert open_secrets(home.secrets) == made
    assert stat.S_IMODE(home.secrets.stat().st_mode) == 0o600
    roles = [login.role for login in made.people]
    assert roles == [Role.TECHNICIAN, Role.DERMATOLOGIST, Role.DERMATOLOGIST, Role.QA, Role.ML_ENGINEER]
    assert len({login.password for login in made.people}) == 5
    assert len(made.admin.token) == 40


def test_damaged_secrets_are_named_with_their_cure(home: Home) -> None:
    home.secrets.write_text("[shared]\nwebhook = 'x'\n", encoding="utf-8")
    with pytest.raises(SecretsError, match=r"secrets\.toml.*Restore it"):
        open_secrets(home.secrets)


def test_label_studio_gets_the_login_by_its_environment_and_never_on_its_command_line(home: Home) -> None:
    secrets = open_secrets(home.secrets)
    program = programs(home, Ports(), secrets, Path("label-studio"))[0]
    assert program.name == LABEL_STUDIO
    assert program.environment["LABEL_STUDIO_USER_TOKEN"] == secrets.admin.token
    assert secrets.admin.password not in " ".join(program.command)
    assert program.environment["USER_ADDITIONAL_BANNED_SUBNETS"] == "169.254.0.0/16"


def test_a_home_is_its_owners_and_label_studio_may_serve_its_images_only(home: Home) -> None:
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert [path.name for path in home.served.iterdir()] == ["images"]
    assert (home.served / "images").resolve() == home.images.resolve()
    label_studio = programs(home, Ports(), open_secrets(home.secrets), Path("label-studio"))[0]
    assert label_studio.environment["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"] == str(home.served)
    home.create()


def test_a_large_log_is_put_aside_at_the_next_start(children: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_LARGE_LOG", 5)
    (children.home.logs / "worker.log").write_text("too large", encoding="utf-8")
    children.start(python("worker", SLEEPER))
    assert (children.home.logs / "worker.log.1").read_text(encoding="utf-8") == "too large"


def test_a_program_that_ends_at_once_is_reported_with_its_last_words(children: Supervisor) -> None:
    children.start(python("failing", "print('no such database'); raise SystemExit(3)"))
    with pytest.raises(StartError, match=r"(?s)Failing: stopped with exit status 3.*no such database.*failing\.log"):
        children.wait_ready("failing")


def test_a_program_that_never_answers_is_given_up_on(children: Supervisor) -> None:
    url = f"http://127.0.0.1:{free_ports().backend}/health"
    children.start(python("mute", SLEEPER, patience=0.6, health_url=url))
    with pytest.raises(StartError, match="did not answer"):
        children.wait_ready("mute")


def test_stopping_ends_a_program_and_all_that_it_started(children: Supervisor) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); {SLEEPER}"
    children.start(python("parent", code))
    process = psutil.Process(children.children["parent"].process.pid)
    assert eventually(lambda: len(process.children()) == 1)
    grandchild = process.children()[0]
    children.stop()
    assert not process.is_running()
    assert eventually(lambda: not grandchild.is_running())


def test_a_killed_program_is_named_and_started_again_after_a_pause(children: Supervisor, said: list[str]) -> None:
    children.start(python("worker", SLEEPER))
    children.wait_ready("worker")
    before = children.children["worker"].process.pid
    children.kill("worker")
    children.tend()
    assert not children.alive("worker")
    assert eventually(lambda: children.tend() or children.alive("worker"))
    assert children.children["worker"].process.pid != before
    assert said[0].startswith("Worker died (exit status -9); it starts again in 1 s.")
    children.stop()


def test_a_program_that_keeps_dying_is_given_up_on(children: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", 0.0)
    children.start(python("hopeless", "raise SystemExit('cannot')"))
    with pytest.raises(StartError, match="died 6 times in a row"):
        eventually(lambda: bool(children.tend()), 20)


def test_strays_of_a_killed_run_are_ended_before_the_next_begins(home: Home, said: list[str]) -> None:
    code = (
        "import sys; from pathlib import Path; from dermloop.home import Home;"
        "from dermloop.stack.supervisor import Supervisor; from dermloop.stack.programs import Program;"
        "import os, time; s = Supervisor(Home(Path(sys.argv[1])), print); s.claim();"
        f"s.start(Program('stray', 'Stray', (sys.executable, '-c', {SLEEPER!r}), dict(os.environ)));"
        "print('up', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(home.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as first:
        assert first.stdout is not None and first.stdout.readline() == b"up\n"
        stray = psutil.Process(supervisor.running(home)["stray"])
        with pytest.raises(RunningError, match=f"process {first.pid}"):
            Supervisor(home, said.append).claim()
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert stray.is_running()
    Supervisor(home, said.append).claim()
    assert not stray.is_running()
    assert said == ["Ending stray, left over from a run that was killed"]


def test_a_helper_ends_when_the_process_that_started_it_is_killed() -> None:
    helper = "from dermloop.orphans import end_with_parent; import time; end_with_parent(); time.sleep(600)"
    code = (
        "import subprocess, sys, time;"
        f"child = subprocess.Popen([sys.executable, '-c', {helper!r}]); print(child.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert eventually(lambda: child.num_threads() > 1)
        parent.kill()
    assert eventually(lambda: not child.is_running())
