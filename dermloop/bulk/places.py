"""Source and target of a sharded conversion as paths that every worker reaches: S3's have a copy in the home."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from converters import storage
from converters.whole import whole_folder


def brought(home: Path, address: str) -> Path:
    """Where a source can be read: itself, or a copy in the home of what lies at an `s3://` address now, taken once.

    Raises DatasetError where nothing can be had there.
    """
    if not storage.is_remote(address):
        return Path(address).absolute()
    place = _copy_of(home, address)
    if not place.is_dir():
        with whole_folder(place, mark=".") as draft:
            storage.fetch(address, draft)
    only = place / address.rstrip("/").rpartition("/")[2]
    return only if only.is_file() else place


def local_target(home: Path, address: str) -> Path:
    """Where a target is joined: itself, or a place in the home from which it is sent; raises DatasetError.

    What an interrupted run left in that place is taken away.
    """
    if not storage.is_remote(address):
        return Path(address).absolute()
    storage.require_free(address)
    place = home / "bulk" / f".to-{_digest(address)}"
    shutil.rmtree(place, ignore_errors=True)
    return place


def deliver(place: Path, address: str) -> None:
    """Sends a joined target to its `s3://` address, what is there already not again; raises DatasetError."""
    if storage.is_remote(address):
        storage.put(place, address)
        shutil.rmtree(place)


def clear(home: Path, source: str) -> None:
    """Takes away the copy of a source that is converted."""
    if storage.is_remote(source):
        shutil.rmtree(_copy_of(home, source), ignore_errors=True)


def _copy_of(home: Path, address: str) -> Path:
    return home / "bulk" / f".from-{_digest(address + storage.state(address))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
