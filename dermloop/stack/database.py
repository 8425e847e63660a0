"""Label Studio's empty database, migrated once for each machine: its migrations take longer than everything else.

The template holds tables and no people; each new home begins with a copy of it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from converters.whole import whole_file
from dermloop.errors import StartError
from dermloop.home import Home, cache_folder
from dermloop.stack.install import VERSION
from dermloop.stack.programs import Program

FILE = "label_studio.sqlite3"
_PATIENCE = 600


def ensure_database(home: Home, label_studio: Program, say: Callable[[str], None]) -> None:
    """Leaves a migrated database in a home that has none; where Label Studio is told of another one, it makes that.

    Raises StartError with Label Studio's last words where it cannot migrate.
    """
    target = home.label_studio / FILE
    if target.exists() or "DJANGO_DB" in label_studio.environment:
        return
    template = cache_folder() / f"label-studio-{VERSION}.sqlite3"
    if not template.exists():
        say("Preparing Label Studio's database (once on this machine; half a minute or so)")
        _migrate(label_studio, template)
    _copy_whole(template, target)


def _migrate(label_studio: Program, template: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**label_studio.environment, "LABEL_STUDIO_BASE_DATA_DIR": folder}
        run = subprocess.run(
            (label_studio.command[0], "version"),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
        made = Path(folder) / FILE
        if run.returncode or not made.exists():
            words = "\n  ".join((run.stdout + run.stderr).splitlines()[-6:])
            value = f"its migrations ended with exit status {run.returncode}:\n  {words}\n"
            raise StartError("Label Studio", value, "a new database", "Mend the cause and start again.")
        _copy_whole(made, template)


def _copy_whole(source: Path, target: Path) -> None:
    with whole_file(target) as draft:
        shutil.copyfile(source, draft)
