"""Label Studio in an environment of its own, beside ours: its pins and ours do not go together."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dermloop.errors import InstallError

VERSION = "1.23.2"
VARIABLE = "DERMLOOP_LABEL_STUDIO_ENV"
_CONSTRAINTS = Path(__file__).with_name("label-studio-constraints.txt")
_FOLDER = ".venv-label-studio"


def environment_folder() -> Path:
    """Where Label Studio's environment is: `DERMLOOP_LABEL_STUDIO_ENV`, else `.venv-label-studio` beside ours."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else Path(sys.prefix).parent / _FOLDER


def ensure_label_studio(say: Callable[[str], None], folder: Path | None = None) -> Path:
    """The path of the `label-studio` program, installed first where it is missing or of another version.

    Raises InstallError with the installer's last words.
    """
    folder = folder or environment_folder()
    program = folder / "bin" / "label-studio"
    if program.exists() and _installed_version(folder) == VERSION:
        return program
    say(f"Installing Label Studio {VERSION} into {folder} (once; about 1 GB, one to three minutes)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for command in _commands(folder):
        _run(command, say)
    if not program.exists():
        raise InstallError(str(program), "not there", "the program", f"Remove {folder} and start again.")
    return program


def _installed_version(folder: Path) -> str | None:
    found = sorted(folder.glob("lib/python*/site-packages/label_studio-*.dist-info"))
    return found[-1].name.removeprefix("label_studio-").removesuffix(".dist-info") if found else None


def _commands(folder: Path) -> tuple[tuple[str, ...], ...]:
    wanted = (f"label-studio=={VERSION}", "-c", str(_CONSTRAINTS))
    python = str(folder / "bin" / "python")
    if uv := _uv():
        return (
            (uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)),
            (uv, "pip", "install", "--python", python, *wanted),
        )
    return (
        (sys.executable, "-m", "venv", "--clear", str(folder)),
        (python, "-m", "pip", "install", "--disable-pip-version-check", *wanted),
    )


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _run(command: Sequence[str], say: Callable[[str], None]) -> None:
    lines: list[str] = []
    environment = {"UV_SYSTEM_CERTS": "true", **os.environ}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            if line.startswith((" + label-studio", "Collecting ", "Prepared", "Installed", "Resolved")):
                say(line.strip()[:100])
    if process.returncode:
        words = "\n  ".join(line for line in lines[-6:] if line)
        value = f"the installer ended with {process.returncode}:\n  {words}\n"
        raise InstallError("Label Studio", value, "exit status 0", "Check network and disk, then start again.")
