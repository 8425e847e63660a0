"""Builds and runs what a Dockerfile says without a container engine: every RUN, verbatim, in a root of its own.

A stage is a throw-away layer over this machine's own Debian (overlayfs in a mount namespace), its commands run by
chroot. Containers share a network namespace with names of their own, a read-only root, volumes, a user without rights.
It needs root and Linux's namespaces; tests skip without them. It cannot show which files the base image lacks.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template

import pytest
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[1]
_PASSED = ("PIP_", "UV_", "SSL_", "REQUESTS_CA", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy")
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
# That the packages exist is shown without installing them.
_APT = """[ "$1" = update ] && exit 0
/usr/bin/apt-get --simulate "$@" >/dev/null 2>&1 && exit 0
/usr/bin/apt-get update -qq && exec /usr/bin/apt-get --simulate "$@" """
# The packages of this machine's own Python are not the base image's.
_CLEAN = "find site-packages -mindepth 1 -maxdepth 1 ! -name 'pip*' -exec rm -rf {} + 2>/dev/null || true"
_PIP = 'python -m pip --version >/dev/null 2>&1 && exec python -m pip --disable-pip-version-check "$@"'
_NO_RIGHTS = ("--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")


@dataclass
class Stage:
    """A stage of a Dockerfile: its root in the namespace, and what its instructions declared so far."""

    name: str
    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    layers: list[Path] = field(default_factory=list)


class Kitchen:
    """A mount and a network namespace in which images are built and containers run."""

    def __init__(self, folder: Path, holder: subprocess.Popen[str], files: Path) -> None:
        self.folder = folder
        self.files = files
        self._holder = holder
        self._running: list[subprocess.Popen[bytes]] = []
        self._number = 0

    def build(self, dockerfile: str, arguments: Mapping[str, str] | None = None) -> Stage:
        """The last stage after every instruction of a Dockerfile was carried out; a failed command shows its words."""
        given = dict(arguments or {})
        stages: dict[str, Stage] = {}
        stage: Stage | None = None
        for step in DockerfileParser(path=str(ROOT / dockerfile)).structure:
            kind, value = step["instruction"], step["value"]
            if kind == "FROM":
                stage = self._from(Template(value).safe_substitute(given), stages)
                stages[stage.name] = stage
            elif kind == "ARG":
                name, _, default = value.partition("=")
                given.setdefault(name, Template(default).safe_substitute(given))
            elif kind != "COMMENT":
                assert stage is not None
                self._carry_out(stage, stages, kind, value)
        assert stage is not None
        return stage

    def run(self, stage: Stage, command: Sequence[str], **given: str) -> subprocess.CompletedProcess[str]:
        """A command in a stage's root, in the network of the containers, as the stage's user."""
        return self._inside(stage, command, {**stage.environment, **given}, stage.user, network=True)

    def start(
        self, stage: Stage, service: Mapping[str, object], volumes: Mapping[str, Path], hosts: Sequence[str]
    ) -> subprocess.Popen[bytes]:
        """A container of a Compose service: its environment, command, user, volumes, and a root that is read-only."""
        names = " ".join(("localhost", *hosts))
        self._shell(f"echo '127.0.0.1 {names}' > {stage.root}/etc/hosts")
        self._shell(f"mount -t tmpfs -o mode=1777 tmp {stage.root}/tmp")
        for entry in service.get("volumes") or ():
            source, target, *rights = str(entry).split(":")
            place = volumes[source]
            into = f"{stage.root}{target}"
            made = f"mkdir -p {into}" if place.is_dir() else f"mkdir -p {Path(into).parent} && touch {into}"
            self._shell(f"{made} && mount --bind {place} {into}")
            if rights == ["ro"]:
                self._shell(f"mount -o remount,bind,ro {stage.root}{target}")
        if service.get("read_only"):
            self._shell(f"mount -o remount,ro {stage.root}")
        environment = {**stage.environment, **{k: str(v) for k, v in dict(service.get("environment") or {}).items()}}
        stage.environment = environment
        command = [str(word) for word in service.get("command") or stage.command]
        log = (self.files / f"{stage.name}.log").open("ab")
        line = self._chrooted(stage, command, environment, stage.user, network=True)
        process = subprocess.Popen(line, stdout=log, stderr=log, env={"PATH": _PATH})
        log.close()
        self._running.append(process)
        return process

    def outside(self, command: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
        """A program of this machine itself, in the network of the containers."""
        log = (self.files / f"{Path(command[0]).name}.log").open("ab")
        line = ["nsenter", "-t", str(self._holder.pid), "-n", "--", *command]
        process = subprocess.Popen(line, stdout=log, stderr=log, env={**os.environ, **environment})
        log.close()
        self._running.append(process)
        return process

    def asked(self, code: str) -> object:
        """What a piece of Python, run in the network of the containers, prints as JSON."""
        line = ["nsenter", "-t", str(self._holder.pid), "-n", "--", sys.executable, "-c", code]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def healthy(self, stage: Stage, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
        """Returns once the stage's own HEALTHCHECK succeeds."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.run(stage, stage.health)
            if found.returncode == 0:
                return
            log = (self.files / f"{stage.name}.log").read_text(errors="replace")
            assert process.poll() is None and time.monotonic() < deadline, f"{found.stderr}\n{log}"
            time.sleep(0.2)

    def close(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._holder.kill()
        self._holder.wait()

    def _from(self, value: str, stages: Mapping[str, Stage]) -> Stage:
        image, _, name = value.partition(" AS ")
        self._number += 1
        name = name.strip() or f"{self.folder.name}-{self._number}"
        base = stages.get(image.strip())
        root = self.folder / f"{self._number}" / "root"
        place = root.parent
        below = [*base.layers] if base else []
        made = replace(base, name=name, root=root) if base else Stage(name, root, {"PATH": _PATH})
        made.environment, made.layers = dict(made.environment), [place, *below]
        made.ports, made.ran = [*made.ports], [*made.ran]
        layer = ":".join([*(f"{one}/upper" for one in below), "/"])
        self._shell(
            f"mkdir -p {place}/upper {place}/work {root} && "
            f"mount -t overlay overlay -o lowerdir={layer},upperdir={place}/upper,workdir={place}/work {root} && "
            f"mount --rbind /proc {root}/proc && mount --rbind /dev {root}/dev && "
            f"mkdir -p {root}/root/.cache && mount --bind {Path.home()}/.cache {root}/root/.cache"
        )
        if base is None:
            self._furnish(made, image.strip())
        else:
            self._mount_python(made)
        return made

    def _mount_python(self, stage: Stage) -> None:
        """The library of this machine's Python where the image has its own, with what the stages below installed."""
        if (own := Path(sys.base_prefix)) != Path("/usr/local"):
            place, name = stage.root.parent, "python{}.{}".format(*sys.version_info[:2])
            lower = ":".join([*(f"{below}/python" for below in stage.layers[1:]), f"{own}/lib/{name}"])
            layers = f"lowerdir={lower},upperdir={place}/python,workdir={place}/python-work"
            into = f"{stage.root}/usr/local/lib/{name}"
            self._shell(
                f"mkdir -p {into} {place}/python {place}/python-work && mount -t overlay overlay -o {layers} {into}"
            )

    def _furnish(self, stage: Stage, image: str) -> None:
        """What the base image has and this machine may not have at the same place: a Python that everybody can run."""
        root = stage.root
        for folder in [*Path(sys.base_prefix).parents][:-1]:
            self._shell(f"chmod o+rx {root}{folder}")
        if image.startswith("heartexlabs/label-studio:"):
            self._program(root, "python3", f'exec {ROOT}/.venv-label-studio/bin/python3 "$@"')
            return
        assert image.startswith("python:3.11."), image
        name = "python{}.{}".format(*sys.version_info[:2])
        own, place = Path(sys.base_prefix), f"{root}/usr/local"
        if own != Path("/usr/local"):
            self._shell(f"cp -L {own}/bin/{name} {place}/bin/{name}; cp -P {own}/lib/libpython3* {place}/lib/ || true")
            self._mount_python(stage)
            self._shell(f"rm -f {place}/bin/python3 {place}/bin/python {place}/bin/pip {place}/bin/uv")
            self._shell(f"ln -s {name} {place}/bin/python3 && ln -s {name} {place}/bin/python")
            self._shell(f"cd {place}/lib/{name} && {_CLEAN}")
            self._program(root, "pip", f'{_PIP}\nexec {uv()} pip "$@" --system')
        self._program(root, "apt-get", _APT)

    def _program(self, root: Path, name: str, script: str) -> None:
        place = f"{root}/usr/local/bin/{name}"
        self._shell(f"rm -f {place} && printf '%b\\n' '#!/bin/sh' {shlex.quote(script)} > {place} && chmod 755 {place}")

    def _carry_out(self, stage: Stage, stages: Mapping[str, Stage], kind: str, value: str) -> None:
        match kind:
            case "ENV":
                for name, content in _assignments(value).items():
                    stage.environment[name] = Template(content).safe_substitute(stage.environment)
            case "WORKDIR":
                stage.folder = value
                self._shell(f"mkdir -p {stage.root}{value}")
            case "USER":
                stage.user = value
            case "COPY":
                self._copy(stage, stages, value)
            case "RUN":
                self._carry_out_run(stage, value)
            case "CMD":
                stage.command = json.loads(value)
            case "EXPOSE":
                stage.ports += value.split()
            case "HEALTHCHECK":
                stage.health = json.loads(value[value.index("CMD ") + 4 :])
            case _:
                raise AssertionError(f"no way to carry out {kind}")

    def _carry_out_run(self, stage: Stage, value: str) -> None:
        command = value
        while command.startswith("--mount=type=cache,target=/root/.cache "):
            command = command.partition(" ")[2]
        assert not command.startswith("--"), command
        stage.ran.append(command)
        given = {name: text for name, text in os.environ.items() if name.startswith(_PASSED)}
        own = {"UV_SYSTEM_CERTS": "true", "PIP_BREAK_SYSTEM_PACKAGES": "1", "HOME": "/root"}
        environment = {**own, **given, **stage.environment}
        done = self._inside(stage, ["/bin/sh", "-c", command], environment, "0", network=False)
        assert done.returncode == 0, f"RUN {command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"

    def _copy(self, stage: Stage, stages: Mapping[str, Stage], value: str) -> None:
        words = value.split()
        source = ROOT
        if words[0].startswith("--from="):
            source = stages[words.pop(0).removeprefix("--from=")].root
        *names, target = words
        place = Path(f"{stage.root}{target if target.startswith('/') else stage.folder + '/' + target}")
        for name in names:
            origin = Path(f"{source}/{name.lstrip('/')}")
            if source is not ROOT:
                self._shell(f"mkdir -p {place} && mount --bind {origin} {place}")
            elif origin.is_dir():
                self._shell(f"mkdir -p {place} && cp -R {origin}/. {place}/")
                self._shell(f"find {place} -name __pycache__ -prune -exec rm -rf {{}} +")
            else:
                assert origin.is_file(), f"COPY {name}: there is no such file"
                folder = place if target.endswith("/") else place.parent
                self._shell(f"mkdir -p {folder} && cp {origin} {place}{'/' if target.endswith('/') else ''}")

    def _inside(
        self, stage: Stage, command: Sequence[str], environment: Mapping[str, str], user: str, network: bool
    ) -> subprocess.CompletedProcess[str]:
        line = self._chrooted(stage, command, environment, user, network)
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=900, env={"PATH": _PATH})

    def _chrooted(
        self, stage: Stage, command: Sequence[str], environment: Mapping[str, str], user: str, network: bool
    ) -> list[str]:
        spaces = ["-m", "-n"] if network else ["-m"]
        settings = [f"{name}={value}" for name, value in environment.items()]
        rights: list[str] = []
        number, _, group = user.partition(":")
        if number not in ("0", "root"):
            rights = ["setpriv", f"--reuid={number}", f"--regid={group or number}", *_NO_RIGHTS]
        entered = ["nsenter", "-t", str(self._holder.pid), *spaces, "--", "chroot", str(stage.root)]
        moved = ["/usr/bin/env", "-i", "-C", stage.folder, *settings]
        return [*entered, *rights, *moved, *command]

    def _shell(self, script: str) -> None:
        line = ["nsenter", "-t", str(self._holder.pid), "-m", "--", "/bin/sh", "-ec", script]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}\n{done.stderr}"


def uv() -> str:
    """The path of uv, which `make install` brings."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else str(shutil.which("uv"))


def _assignments(value: str) -> dict[str, str]:
    return {name: content for name, _, content in (word.partition("=") for word in shlex.split(value))}


@contextmanager
def kitchen(files: Path) -> Iterator[Kitchen]:
    """A kitchen whose layers lie in memory and are gone afterwards; skips where the machine allows no namespaces."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("building a Dockerfile without an engine needs root and Linux's namespaces")
    folder = files / "layers"
    folder.mkdir(parents=True)
    layers = f"mount --make-rprivate / && mount -t tmpfs -o size=12g layers {folder}"
    script = f"{layers} && ip link set lo up && echo ready && exec sleep 3600"
    line = ["unshare", "--mount", "--net", "/bin/sh", "-c", script]
    holder = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stderr is not None
    if holder.stdout.readline().strip() != "ready":
        reason = holder.stderr.read()
        holder.wait()
        pytest.skip(f"this machine allows no mount or network namespaces: {reason.strip()}")
    made = Kitchen(folder, holder, files)
    try:
        yield made
    finally:
        made.close()
        holder.stdout.close()
        holder.stderr.close()
