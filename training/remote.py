"""Datasets and models on S3, and who serves what there: immutable folders, a log that only grows, one pointer.

```
<address>/datasets/<digest>/…, <address>/models/<version>/…   each folder's `_COMPLETE` is written last and once
<address>/promotions/00000001.json …                          one object for each change, never written twice
<address>/champion.json                                       {"version": …, "entry": …}, moved on condition
```

The log decides: an entry is written only where there is none with its number, so that of two people who promote at the
same moment one is refused. The pointer follows the log, and a pointer left behind by a killed process is put right by
the next reader. Conditions are S3's own (`If-None-Match`, `If-Match`). Whoever only reads needs no more than
`ml_backend.remote_folders`: serving follows the pointer with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from converters import dataset as datasets
from converters.dataset import DatasetVersion, file_digest
from ml_backend import bundle as bundles
from ml_backend.bundle import CHAMPION, ModelBundle
from ml_backend.errors import FetchError, SettingsError, StoreError
from ml_backend.remote_folders import MARK, RemoteFolders
from ml_backend.s3 import ObjectStore
from training.errors import RegistryError
from training.registry import Promotion, decode_promotion

_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
_THREADS = 8


class RemoteRegistry:
    """Everything below one `s3://bucket/prefix`; connects on first use, with the environment's credentials."""

    def __init__(self, address: str) -> None:
        try:
            self._folders = RemoteFolders(address, ObjectStore())
        except SettingsError as error:
            raise RegistryError(error.item, error.value, error.expected, error.cure) from error
        self.address, self._bucket, self._key = self._folders.address, self._folders.bucket, self._folders.key

    @property
    def _client(self) -> Any:
        return self._folders.store.client

    def push_dataset(self, version: DatasetVersion) -> int:
        """How many files of a dataset version were sent; 0 where it is there already. Its images are checked first."""
        version.verify()
        names = (datasets.VERSION, datasets.MANIFEST, *(item.record.uri for item in version.dataset.items))
        return self._push(version.root, f"datasets/{version.root.name}", names)

    def pull_dataset(self, name: str, folder: Path) -> DatasetVersion:
        """A dataset version in `folder/<name>`, every digest checked; taken as it is where it is there already."""
        if not (folder / name / datasets.VERSION).is_file():
            self._pull(f"datasets/{name}", folder / name)
        return datasets.load(folder / name)

    def push_model(self, bundle: ModelBundle) -> int:
        """How many files of a bundle were sent; 0 where it is there already."""
        stages = {bundles.DETECTOR_FILE: bundle.detector, bundles.CLASSIFIER_FILE: bundle.classifier}
        names = (bundles.HEADER, *(name for name, spec in stages.items() if spec is not None))
        return self._push(bundle.root, f"models/{bundle.version}", names)

    def pull_model(self, version: str, models: Path) -> ModelBundle:
        """A bundle in `models/<version>`, every digest checked; raises RegistryError where it is not there."""
        if not (models / version / bundles.HEADER).is_file():
            self._pull(f"models/{version}", models / version)
        return bundles.load_bundle(models / version)

    def history(self) -> tuple[Promotion, ...]:
        """Every promotion and rollback, oldest first."""
        with self._told("promotions"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._key("promotions/")
            )
            keys = sorted(row["Key"] for page in pages for row in page.get("Contents", ()))
        return tuple(decode_promotion(self._read(key) or b"", f"s3://{self._bucket}/{key}") for key in keys)

    def champion(self) -> str | None:
        """The version that is served, by the log; puts a pointer right that lags behind it."""
        entries = self.history()
        if not entries:
            return None
        known = self._read(self._key(CHAMPION))
        wanted = {"version": entries[-1].version, "entry": len(entries)}
        if known is None or orjson.loads(known)["entry"] < len(entries):
            self._point(wanted)
        return entries[-1].version

    def pointer(self) -> str | None:
        """What the pointer says: one request, for whoever asks every second."""
        found = self._read(self._key(CHAMPION))
        return str(orjson.loads(found)["version"]) if found else None

    def record(self, entry: Promotion) -> None:
        """Appends a change to the log and moves the pointer.

        The first change may come from a machine that had a champion of its own. Raises RegistryError where the version
        is not there, and where somebody else changed the champion meanwhile.
        """
        if self._read(self._key(f"models/{entry.version}/{MARK}")) is None:
            raise RegistryError(entry.version, "not there", f"a model under {self.address}", "Push it first.")
        entries = self.history()
        current = entries[-1].version if entries else None
        if entries and current != entry.previous:
            raise RegistryError(f"champion of {self.address}", current, f"{entry.previous}", _AGAIN)
        number = len(entries) + 1
        if not self._put_new(self._key(f"promotions/{number:08d}.json"), orjson.dumps(asdict(entry))):
            raise RegistryError(f"promotion {number} of {self.address}", "another", "no entry yet", _AGAIN)
        self._point({"version": entry.version, "entry": number})

    def _point(self, wanted: dict[str, Any]) -> None:
        """Moves the pointer unless it is at this entry of the log, or further, already."""
        key = self._key(CHAMPION)
        for _ in range(10):
            with self._told(CHAMPION):
                known, etag = self._read_tagged(key)
                if known is not None and orjson.loads(known)["entry"] >= wanted["entry"]:
                    return
                condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
                if self._put(key, orjson.dumps(wanted), **condition):
                    return
        raise RegistryError(f"{self.address}/{CHAMPION}", "ever another", "a moment alone with it", _AGAIN)

    def _push(self, folder: Path, place: str, names: Iterable[str]) -> int:
        digests = {name: file_digest(folder / name) for name in names}
        mark = orjson.dumps(digests, option=orjson.OPT_SORT_KEYS)
        there = self._read(self._key(f"{place}/{MARK}"))
        if there is not None:
            if orjson.loads(there) != orjson.loads(mark):
                raise RegistryError(f"{self.address}/{place}", "other content", "the same version", _IMMUTABLE)
            return 0
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda name: self._send(folder / name, f"{place}/{name}"), digests))
        if not self._put_new(self._key(f"{place}/{MARK}"), mark):
            raise RegistryError(f"{self.address}/{place}", "sent by somebody else meanwhile", "one sender", _AGAIN)
        return len(digests)

    def _send(self, path: Path, place: str) -> None:
        with self._told(place), path.open("rb") as stream:
            self._client.put_object(Bucket=self._bucket, Key=self._key(place), Body=stream)

    def _pull(self, place: str, target: Path) -> None:
        try:
            self._folders.bring(place, target)
        except (FetchError, StoreError) as error:
            raise RegistryError(error.item, error.value, error.expected, error.cure) from error

    def _put_new(self, key: str, content: bytes) -> bool:
        return self._put(key, content, IfNoneMatch="*")

    def _put(self, key: str, content: bytes, **condition: str) -> bool:
        """Whether an object could be written under a condition."""
        from botocore.exceptions import ClientError

        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=content, **condition)
        except ClientError as error:
            if _code(error) in _TAKEN:
                return False
            raise
        return True

    def _read(self, key: str) -> bytes | None:
        with self._told(key):
            return self._read_tagged(key)[0]

    def _read_tagged(self, key: str) -> tuple[bytes | None, str]:
        from botocore.exceptions import ClientError

        try:
            found = self._client.get_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _code(error) in _MISSING:
                return None, ""
            raise
        return bytes(found["Body"].read()), str(found["ETag"])

    @contextmanager
    def _told(self, item: str) -> Iterator[None]:
        """Turns what botocore raises into one RegistryError that names the place and the store's own code."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            place = f"{self.address} ({item})"
            raise RegistryError(place, _code(error), "the store to accept it", _CREDENTIALS) from error
        except BotoCoreError as error:
            place = f"{self.address} ({item})"
            raise RegistryError(place, type(error).__name__, "an answer from the store", _CREDENTIALS) from error


def shared(address: str) -> RemoteRegistry | None:
    """The shared registry at an address; None for an empty one."""
    return RemoteRegistry(address) if address else None


_AGAIN = "Look at `dermloop models --registry` and decide again."
_IMMUTABLE = "A version never changes: freeze or train anew."
_CREDENTIALS = "Check bucket, endpoint and credentials."


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code") or "ClientError")
