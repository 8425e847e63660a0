"""The local stack as one object: four real programs on one home folder, with their people and addresses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dermloop.home import Home
from dermloop.stack import accounts, install
from dermloop.stack.database import ensure_database
from dermloop.stack.ports import Ports
from dermloop.stack.programs import BACKEND, LABEL_STUDIO, REVIEW, WORKER, Program, programs, url
from dermloop.stack.secrets import Login, StackSecrets, open_secrets, save_secrets
from dermloop.stack.supervisor import Say, Supervisor
from review_workflow.label_studio_actions import install_actions

if TYPE_CHECKING:
    from ml_backend.settings import Settings as ServingSettings
    from review_workflow.service import ReviewService

ALL = (LABEL_STUDIO, BACKEND, REVIEW, WORKER)


class Stack:
    """Label Studio, the ML backend, the review service and the job worker on one home folder.

    Use it as a context manager, or call `start` and `stop`. What it knows lies in the home folder, so that a second
    stack on the same home goes on where the first one ended, however it ended.
    """

    def __init__(self, home: Home, ports: Ports, secrets: StackSecrets, known: Iterable[Program], say: Say) -> None:
        self.home = home
        self.ports = ports
        self.secrets = secrets
        self._programs = {program.name: program for program in known}
        self._say = say
        self._supervisor = Supervisor(home, say)

    @classmethod
    def open(cls, home: Path | None = None, ports: Ports | None = None, say: Say = print) -> Stack:
        """The stack of a home folder; installs Label Studio and makes logins where there are none yet.

        `say` is told each step in a sentence. Raises DermloopError where something needed cannot be had.
        """
        place, chosen = Home.at(home), ports or Ports()
        place.create()
        secrets = open_secrets(place.secrets)
        label_studio = install.ensure_label_studio(say)
        install_actions(label_studio.parent.parent)
        return cls(place, chosen, secrets, programs(place, chosen, secrets, label_studio), say)

    @property
    def label_studio_url(self) -> str:
        """Where annotators go."""
        return url(self.ports.label_studio)

    @property
    def backend_url(self) -> str:
        """Where the ML backend answers."""
        return url(self.ports.backend)

    @property
    def review_url(self) -> str:
        """Where the review service answers."""
        return url(self.ports.review)

    @property
    def admin(self) -> Login:
        """The service's own account in Label Studio."""
        return self.secrets.admin

    @property
    def people(self) -> tuple[Login, ...]:
        """The five people, with tokens and ids once `start` has met Label Studio."""
        return self.secrets.people

    def start(self, names: Iterable[str] = ALL) -> None:
        """Starts the named programs and returns when each answers; people exist in Label Studio afterwards.

        Raises PortError, RunningError or StartError; nothing stays running then.
        """
        wanted = [self._programs[name] for name in ALL if name in set(names)]
        self._supervisor.claim()
        try:
            self.ports.require_free()
            if LABEL_STUDIO in {program.name for program in wanted}:
                ensure_database(self.home, self._programs[LABEL_STUDIO], self._say)
            for program in wanted:
                self._supervisor.start(program)
            for program in wanted:
                self._wait_ready(program)
            if LABEL_STUDIO in self._supervisor.children:
                self._meet_people()
        except BaseException:
            self.stop()
            raise

    def open_review(self) -> ReviewService:
        """The review of this home, connected to this stack's Label Studio; close it after use."""
        from review_workflow.service import open_service
        from review_workflow.settings import ReviewSettings

        return open_service(ReviewSettings(**self._settings_of("REVIEW")))

    def serving_settings(self) -> ServingSettings:
        """The settings that this stack's ML backend runs with."""
        from ml_backend.settings import read_settings

        return read_settings(**self._settings_of("ML"))

    def stop(self) -> None:
        """Stops all programs; what they stored stays."""
        self._supervisor.release()

    def kill(self, name: str) -> None:
        """Ends a program as `kill -9` does."""
        self._supervisor.kill(name)

    def restart(self, name: str) -> None:
        """Starts a program again, ending it first where it runs; returns when it answers."""
        self._supervisor.stop((name,))
        self._supervisor.start(self._programs[name])
        self._supervisor.wait_ready(name)

    @property
    def running(self) -> bool:
        """Whether this object runs the home's programs."""
        return self._supervisor.claimed

    def alive(self, name: str) -> bool:
        """Whether a program's process is running."""
        return self._supervisor.alive(name)

    def pid(self, name: str) -> int:
        """The process id of a program that was started."""
        return self._supervisor.children[name].process.pid

    def watch(self, stopping: Callable[[], bool], pause: float = 0.5) -> None:
        """Looks after the programs until `stopping` says so; raises StartError where one keeps dying."""
        while not stopping():
            self._supervisor.tend()
            time.sleep(pause)

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _settings_of(self, prefix: str) -> dict[str, Any]:
        """What a program of ours is told by its environment, as arguments of its settings."""
        start = f"DERMLOOP_{prefix}_"
        environment = self._programs[REVIEW].environment
        return {name[len(start) :].lower(): value for name, value in environment.items() if name.startswith(start)}

    def _wait_ready(self, program: Program) -> None:
        begun = time.monotonic()
        self._say(f"Waiting for {program.title}")
        self._supervisor.wait_ready(program.name)
        self._say(f"{program.title} is ready ({time.monotonic() - begun:.0f} s)")

    def _meet_people(self) -> None:
        admin = accounts.account_of(self.label_studio_url, self.secrets.admin)
        people = tuple(accounts.ensure_account(self.label_studio_url, admin, login) for login in self.secrets.people)
        self.secrets = replace(self.secrets, admin=admin, people=people)
        save_secrets(self.home.secrets, self.secrets)
