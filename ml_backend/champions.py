"""Where a host learns which version is the champion, and has its bundle from: a folder, or a registry on S3.

A registry is shared by any number of machines. Each keeps the bundles that it serves in a folder of its own, so that it
starts and serves on while the registry is away.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import orjson

from converters.taxonomy import Taxonomy
from ml_backend.bundle import CHAMPION, HEADER, ModelBundle, champion_version, list_bundles, load_bundle, set_champion
from ml_backend.errors import BundleError
from ml_backend.remote_folders import RemoteFolders

_log = logging.getLogger(__name__)
_KEPT = 3
"""So many bundles stay in a registry's folder here: a rollback needs no network."""

_STALE_SECONDS = 3600.0


class Champions(Protocol):
    """What a host follows.

    `folder` holds the bundles, `pause` is the time between two looks in seconds, and where `remote`, nobody who has a
    request to answer looks.
    """

    folder: Path
    pause: float
    remote: bool

    def named(self) -> str | None:
        """The champion's version, or None before the first promotion.

        Raises BundleError for a broken pointer, and StoreError where it cannot be asked for.
        """

    def remembered(self) -> str | None:
        """The version that was served here last, for as long as the champion cannot be asked for."""

    def bring(self, version: str) -> ModelBundle:
        """The bundle of a version, checked; raises BundleError, FetchError or StoreError where it cannot be had."""

    def settled(self, version: str) -> None:
        """Is told that a version serves now."""


class FolderChampions:
    """The pointer and the bundles of a folder of this machine, or of a volume that machines share."""

    pause, remote = 0.5, False

    def __init__(self, folder: Path, taxonomy: Taxonomy | None = None) -> None:
        self.folder = folder
        self._taxonomy = taxonomy

    def named(self) -> str | None:
        """What `champion.json` says."""
        return champion_version(self.folder)

    def remembered(self) -> str | None:
        """Nothing: a folder is never away."""
        return None

    def bring(self, version: str) -> ModelBundle:
        """The bundle as it lies there."""
        return load_bundle(self.folder / version, self._taxonomy)

    def settled(self, version: str) -> None:
        """Nothing is to be done."""


class RegistryChampions:
    """The pointer of a shared registry, and its bundles, brought into a folder of this machine."""

    pause, remote = 2.0, True

    def __init__(self, registry: RemoteFolders, folder: Path, taxonomy: Taxonomy | None = None) -> None:
        self.folder = folder
        self._registry = registry
        self._taxonomy = taxonomy
        self._brought: set[str] = set()

    def named(self) -> str | None:
        """What the registry's pointer says: one request."""
        content = self._registry.look(CHAMPION)
        if content is None:
            return None
        item = f"{self._registry.address}/{CHAMPION}"
        try:
            version = str(orjson.loads(content)["version"])
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise BundleError(item, str(error), '{"version": …}', "Promote a bundle again.") from error
        if Path(version).name != version or version.startswith("."):
            raise BundleError(item, version, "the name of a version", "Promote a bundle again.")
        return version

    def remembered(self) -> str | None:
        """What this folder served last."""
        with contextlib.suppress(BundleError):
            return champion_version(self.folder)
        return None

    def bring(self, version: str) -> ModelBundle:
        """The bundle out of the folder; brought there first where it is missing, or was damaged since."""
        try:
            return load_bundle(self.folder / version, self._taxonomy)
        except BundleError:
            if version in self._brought and (self.folder / version).is_dir():
                raise
        _remove(self.folder / version)
        self._registry.bring(f"models/{version}", self.folder / version)
        self._brought.add(version)
        return load_bundle(self.folder / version, self._taxonomy)

    def settled(self, version: str) -> None:
        """Remembers the version and removes bundles that were not served for long; a full disk changes nothing."""
        try:
            os.utime(self.folder / version / HEADER)
            set_champion(self.folder, version)
            for path in (*self._outdated(version), *self._left_behind()):
                _remove(path)
        except (OSError, BundleError) as error:
            _log.warning("cannot tidy up %s: %s", self.folder, error)

    def _outdated(self, version: str) -> Iterator[Path]:
        others = [name for name in list_bundles(self.folder) if name != version]
        yield from (self.folder / name for name in others[: max(0, len(others) - _KEPT + 1)])

    def _left_behind(self) -> Iterator[Path]:
        """What processes that were killed left in the folder."""
        for path in self.folder.glob(".*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    yield path


def _remove(path: Path) -> None:
    """Takes a folder away in one step, then deletes it; others may be doing the same."""
    aside = path if path.name.startswith(".") else path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        path.rename(aside)
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            aside.unlink()
