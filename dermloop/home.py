"""The home folder of a local stack: where each thing lies."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "DERMLOOP_HOME"
CACHE_VARIABLE = "DERMLOOP_CACHE"
_DEFAULT = ".dermloop"


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below one home folder; docs/design.md says who owns which."""

    root: Path

    @classmethod
    def at(cls, root: Path | None = None) -> Home:
        """The given folder, else the one `DERMLOOP_HOME` names, else `.dermloop` here; always absolute."""
        return cls((root or Path(os.environ.get(VARIABLE) or _DEFAULT)).expanduser().absolute())

    @property
    def images(self) -> Path:
        """Clean images, named by content."""
        return self.root / "images"

    @property
    def served(self) -> Path:
        """All that Label Studio may ever serve from disk: a link to the images, and nothing else of the home."""
        return self.root / "served"

    @property
    def demo(self) -> Path:
        """Synthetic images with their table, as they would be published."""
        return self.root / "demo"

    @property
    def label_studio(self) -> Path:
        """Label Studio's own data folder."""
        return self.root / "label-studio"

    @property
    def models(self) -> Path:
        """Bundles and the champion pointer."""
        return self.root / "models"

    @property
    def logs(self) -> Path:
        """One log file for each program."""
        return self.root / "logs"

    @property
    def secrets(self) -> Path:
        """Generated logins and shared secrets, readable by the owner only."""
        return self.root / "secrets.toml"

    @property
    def review_db(self) -> Path:
        """The review's database file."""
        return self.root / "review.db"

    @property
    def jobs_db(self) -> Path:
        """The job queue's database file."""
        return self.root / "jobs.db"

    @property
    def run_file(self) -> Path:
        """Which processes of this home are running."""
        return self.root / "run.json"

    @property
    def ready_file(self) -> Path:
        """The addresses of a stack that is up; not there while it starts."""
        return self.root / "ready.json"

    def create(self) -> None:
        """Makes the folders, a new home for its owner's eyes only; an existing home stays as it is."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.images, self.label_studio, self.models, self.logs, self.served):
            folder.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (self.served / self.images.name).symlink_to(Path("..") / self.images.name)


def cache_folder() -> Path:
    """What homes on one machine share and can be made again: `DERMLOOP_CACHE`, else the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "dermloop"
