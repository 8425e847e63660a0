"""A home folder with something of everything in it, on SQLite or PostgreSQL."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from builders_review import EVERYBODY, MemoryLabelStudio, a_service, an_image, prepare
from builders_serving import bundle, encoded, pixels

from dermloop.backup import Places
from dermloop.home import Home
from ml_backend.jobs import JobQueue, request_retrain
from review_workflow.service import ReviewService
from review_workflow.store import open_store


@dataclass(frozen=True)
class FullHome:
    """A home, the places of its state, and the review on it."""

    home: Home
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def places(self) -> Places:
        return Places.of(self.home, self.environment)

    def review(self) -> ReviewService:
        store = open_store(self.places.review.url)
        return a_service(store, MemoryLabelStudio())

    def files(self) -> dict[str, bytes]:
        """Every file of the home that a backup keeps as a file, by path."""
        found = (path for path in sorted(self.home.root.rglob("*")) if path.is_file() and not path.is_symlink())
        kept = {path.relative_to(self.home.root).as_posix(): path for path in found}
        return {name: path.read_bytes() for name, path in kept.items() if ".db" not in name and "sqlite3" not in name}


def a_full_home(folder: Path, images: int = 6, environment: dict[str, str] | None = None) -> FullHome:
    """A home with pictures under review, a champion, a frozen version, a policy, jobs and Label Studio's data."""
    home = Home(folder)
    home.create()
    made = FullHome(home, environment or {})
    _review_of(made, images)
    bundle(folder, name="tiny")
    for name, content in {
        "datasets/abc/manifest.jsonl": b'{"image": 1}\n',
        "datasets/history.jsonl": b'{"version": "abc"}\n',
        "models/promotions.jsonl": b'{"version": "tiny"}\n',
        "policy.toml": b"[readers]\nshare_with_second = 0.5\n",
        "secrets.toml": b"# secret\n",
        "runs/r1/status.json": b"{}",
        "label-studio/media/upload/1/a.png": encoded(pixels()),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "secrets.toml").chmod(0o600)
    with closing(sqlite3.connect(home.label_studio / "label_studio.sqlite3")) as studio, studio:
        studio.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, data TEXT)")
        studio.executemany("INSERT INTO task (data) VALUES (?)", [(f"task {n}",) for n in range(images)])
    queue = JobQueue.open(made.places.jobs)
    request_retrain(queue, "approved 20", "qa")
    queue.close()
    return made


def _review_of(made: FullHome, images: int) -> None:
    store = open_store(made.places.review.url)
    prepare(store, EVERYBODY)
    service = a_service(store, MemoryLabelStudio())
    records = [an_image(number) for number in range(images)]
    for number, record in enumerate(records):
        content = encoded(pixels(200 + number, 100), "JPEG")
        (made.home.images / f"{record.image_id}.jpg").write_bytes(content)
    service.register(records)
    service.close()
