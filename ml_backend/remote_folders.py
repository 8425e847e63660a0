"""Folders on S3 that never change once they are whole: `training.remote` writes them, anybody may bring them here.

```
<address>/<place>/…            the files of a folder
<address>/<place>/_COMPLETE    written last and once: each file's name and SHA-256
```
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import orjson

from converters.whole import whole_folder
from ml_backend.errors import FetchError, SettingsError
from ml_backend.s3 import ObjectStore

MARK = "_COMPLETE"
_THREADS = 8


def split_address(address: str, item: str = "registry") -> tuple[str, str]:
    """Bucket and prefix of an `s3://` address; raises SettingsError naming `item` where it is none."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if not address.startswith("s3://") or not bucket:
        raise SettingsError(item, address, "s3://bucket or s3://bucket/prefix", "Correct the address.")
    return bucket, prefix.strip("/")


class RemoteFolders:
    """Everything below one `s3://bucket/prefix`; raises SettingsError for another address."""

    def __init__(self, address: str, store: ObjectStore) -> None:
        self.bucket, self._prefix = split_address(address)
        self.address, self.store = address.rstrip("/"), store

    def key(self, name: str) -> str:
        """The key of an object below the address."""
        return f"{self._prefix}/{name}" if self._prefix else name

    def look(self, name: str) -> bytes | None:
        """The bytes of a small object, or None where there is none; raises StoreError where it cannot be asked for."""
        return self.store.look(self.bucket, self.key(name))

    def bring(self, place: str, target: Path) -> None:
        """Leaves a folder in `target`, every digest checked; it appears whole or not at all.

        Raises FetchError where it is not there, has other bytes, or does not fit on the disk, and StoreError where the
        store cannot be asked.
        """
        digests = self._digests(place)
        try:
            with whole_folder(target, mark=".") as draft, ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(lambda name: self._bring(f"{place}/{name}", draft / name, digests[name]), digests))
        except OSError as error:
            reason = error.strerror or str(error)
            cure = "Make room, or check who may write there."
            raise FetchError(str(error.filename or target), reason, "a folder to bring it to", cure) from error

    def _digests(self, place: str) -> dict[str, str]:
        mark = self.look(f"{place}/{MARK}")
        item = f"{self.address}/{place}"
        if mark is None:
            raise FetchError(item, "not there", "a finished upload", "Push it, or correct it.")
        digests = _decoded(mark, item)
        for name in digests:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise FetchError(item, name, "paths inside the folder", "Push it again.")
        return digests

    def _bring(self, name: str, path: Path, digest: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        found = self.store.fetch(self.bucket, self.key(name), path)
        if found != digest:
            raise FetchError(f"{self.address}/{name}", found, f"SHA-256 {digest}", "Restore the object.")


def _decoded(mark: bytes, item: str) -> dict[str, str]:
    try:
        return {str(name): str(digest) for name, digest in orjson.loads(mark).items()}
    except (orjson.JSONDecodeError, AttributeError) as error:
        raise FetchError(item, str(error), f"names and digests in {MARK}", "Push it again.") from error
