"""Buckets: every object with its content type and metadata, into an archive and back, through the serving's store."""

from __future__ import annotations

import tempfile
from pathlib import Path

import orjson

from dermloop.backup.archive import Reader, Writer
from dermloop.errors import BackupError
from ml_backend.errors import ServingError, StoreError
from ml_backend.s3 import ObjectStore, StoredObject

_HEADS = "objects/{bucket}.heads.jsonl"


def add_bucket(writer: Writer, endpoint: str | None, bucket: str) -> None:
    """Adds every object of a bucket; raises BackupError where the bucket cannot be listed or read."""
    store = ObjectStore(endpoint)
    heads: list[bytes] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "object"
            for key, _ in store.keys(bucket, ""):
                if (head := _fetched(store, bucket, key, copy)) is None:
                    continue
                with copy.open("rb") as stream:
                    writer.add(f"objects/{bucket}/{key}", stream)
                heads.append(_encode(head))
    except ServingError as error:
        raise BackupError(error.item, error.value, error.expected, error.cure) from error
    with tempfile.TemporaryFile() as stream:
        stream.writelines(heads)
        writer.add(_HEADS.format(bucket=bucket), stream)


def _fetched(store: ObjectStore, bucket: str, key: str, copy: Path) -> StoredObject | None:
    """The head of an object whose bytes are in a file now; None where it was deleted since it was listed."""
    head = store.head(bucket, key)
    if head is None:
        return None
    try:
        store.fetch(bucket, key, copy)
    except StoreError:
        if store.head(bucket, key) is None:
            return None
        raise
    return head


def is_empty(endpoint: str | None, bucket: str) -> bool:
    """Whether a bucket holds nothing; raises BackupError where it cannot be listed."""
    try:
        return next(iter(ObjectStore(endpoint).keys(bucket, "")), None) is None
    except ServingError as error:
        raise BackupError(error.item, error.value, error.expected, error.cure) from error


def give_back(reader: Reader, endpoint: str | None, bucket: str) -> int:
    """How many objects were put back into a bucket, with type and metadata; raises BackupError where it refuses."""
    heads = _heads(reader, bucket)
    parts = reader.under(f"objects/{bucket}")
    store = ObjectStore(endpoint)
    try:
        for part in parts:
            key = part.path.removeprefix(f"objects/{bucket}/")
            with reader.open(part) as stream:
                store.put(bucket, key, stream, heads.get(key))
    except ServingError as error:
        raise BackupError(error.item, error.value, error.expected, error.cure) from error
    return len(parts)


def _heads(reader: Reader, bucket: str) -> dict[str, StoredObject]:
    wanted = _HEADS.format(bucket=bucket)
    found: dict[str, StoredObject] = {}
    for part in reader.manifest.parts:
        if part.path == wanted:
            with reader.open(part) as stream:
                rows = [orjson.loads(line) for line in stream.read().splitlines()]
            found = {row["key"]: StoredObject(bucket, **row) for row in rows}
    return found


def _encode(head: StoredObject) -> bytes:
    row = {"key": head.key, "etag": head.etag, "size": head.size}
    extra = {"metadata": dict(head.metadata), "headers": dict(head.headers)}
    return orjson.dumps({**row, **extra}, option=orjson.OPT_APPEND_NEWLINE)
