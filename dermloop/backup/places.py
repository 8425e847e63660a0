"""Where the state lies that an archive holds: a home folder on a laptop; volumes, PostgreSQL, buckets on a server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dermloop.home import Home
from dermloop.stack.database import FILE as LABEL_STUDIO_FILE
from ml_backend.settings import read_settings as read_serving_settings
from review_workflow.settings import read as read_review_settings

PREFIX = "DERMLOOP_BACKUP_"
_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Database:
    """A database by its SQLAlchemy URL: a file of SQLite, or one on a PostgreSQL server; `name` is its part's name."""

    name: str
    url: str

    @property
    def file(self) -> Path | None:
        """SQLite's file, None for PostgreSQL."""
        return Path(self.url.removeprefix(_SQLITE)) if self.url.startswith(_SQLITE) else None

    @property
    def part(self) -> str:
        """The member of an archive that holds it."""
        return f"databases/{self.name}.{'sqlite3' if self.file else 'pgdump'}"


@dataclass(frozen=True, slots=True)
class Places:
    """Everything that has to be brought to safety; `buckets` is empty where the objects are safe elsewhere.

    `jobs` is the address of the job queue: a file, or a server's `redis://`.
    """

    home: Home
    review: Database
    label_studio: Database
    label_studio_data: Path
    jobs: str
    models: Path | None = None
    buckets: tuple[str, ...] = ()
    s3_endpoint: str | None = None

    @property
    def databases(self) -> tuple[Database, ...]:
        """In the order in which they are read: what Label Studio said later, the review takes in again by itself."""
        return (self.review, self.label_studio)

    @property
    def trees(self) -> tuple[tuple[str, Path], ...]:
        """Folders of files by the name of their part; models have one where they lie outside the home."""
        own = (("home", self.home.root), ("label-studio", self.label_studio_data))
        return own if self.models is None else (*own, ("models", self.models))

    @classmethod
    def of(cls, home: Home, environment: Mapping[str, str] = os.environ) -> Places:
        """The places of a home, as its programs' settings and `DERMLOOP_BACKUP_…` name them."""
        review = read_review_settings(home=home.root)
        serving = read_serving_settings(home=home.root, host="127.0.0.1")
        data = Path(environment.get(f"{PREFIX}LABEL_STUDIO_DATA") or home.label_studio)
        own = environment.get(f"{PREFIX}LABEL_STUDIO_DATABASE") or f"{_SQLITE}{data / LABEL_STUDIO_FILE}"
        listed = environment.get(f"{PREFIX}BUCKETS", "")
        models = serving.models_folder.absolute()
        return cls(
            home=home,
            review=Database("review", review.database),
            label_studio=Database("label-studio", own),
            label_studio_data=data,
            jobs=serving.jobs_address,
            models=None if models.is_relative_to(home.root) else models,
            buckets=tuple(name.strip() for name in listed.split(",") if name.strip()),
            s3_endpoint=serving.s3_endpoint,
        )
