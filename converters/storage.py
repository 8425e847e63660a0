"""Folders on S3: brought here before a conversion, put there after it, the index last; the one door to boto3."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from converters.errors import DatasetError

MARKER = "_COMPLETE"
"""Object that is written last: a prefix without it is not finished."""

_CURE = "Check the address and the credentials."


def is_remote(address: str) -> bool:
    """Whether an address is an `s3://` one."""
    return address.startswith("s3://")


def fetch(address: str, folder: Path) -> Path:
    """The local copy of an object or of all objects under a prefix; raises DatasetError where there is none.

    Files of the folder that are equal to their objects are not brought again; those without an object go.
    """
    bucket, prefix = _split(address)
    client = _client()
    try:
        under = dict(_listed(client, bucket, prefix))
        found = {key: tag for key, tag in under.items() if key == prefix or key.startswith(f"{prefix}/")}
        places = dict(_places(found, prefix, folder))
        for stray in {path for path in folder.rglob("*") if path.is_file()} - {*places.values()}:
            stray.unlink()
        for key, place in places.items():
            if not place.is_file() or _digest(place.read_bytes()) != found[key]:
                place.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, key, str(place))
    except (BotoCoreError, ClientError) as error:
        raise DatasetError(address, str(error), "a readable bucket", _CURE) from error
    if not found:
        raise DatasetError(address, "no object", "objects under this prefix", "Check the address.")
    return folder / Path(prefix).name if prefix in found else folder


def state(address: str) -> str:
    """A digest of which objects lie under a prefix, with their contents' tags; raises DatasetError."""
    bucket, prefix = _split(address)
    try:
        found = sorted(_listed(_client(), bucket, prefix))
    except (BotoCoreError, ClientError) as error:
        raise DatasetError(address, str(error), "a readable bucket", _CURE) from error
    return hashlib.sha256(repr(found).encode()).hexdigest()


def require_free(address: str) -> None:
    """Raises DatasetError where a finished export lies under the prefix."""
    bucket, prefix = _split(address)
    try:
        found = dict(_listed(_client(), bucket, f"{prefix}/{MARKER}"))
    except (BotoCoreError, ClientError) as error:
        raise DatasetError(address, str(error), "a readable bucket", _CURE) from error
    if found:
        raise DatasetError(address, "a finished export", "a new prefix", "Name another prefix.")


def put(folder: Path, address: str) -> int:
    """How many objects were sent: those of the folder that are not there yet with the same bytes, the marker last.

    Raises DatasetError where the bucket cannot be written, or holds objects under the prefix that are none of these.
    """
    bucket, prefix = _split(address)
    client, sent = _client(), 0
    try:
        there = dict(_listed(client, bucket, f"{prefix}/"))
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        keys = {f"{prefix}/{path.relative_to(folder).as_posix()}": path for path in paths}
        _require_own(there, keys, address)
        for key, path in keys.items():
            content = path.read_bytes()
            if there.get(key) != _digest(content):
                client.put_object(Bucket=bucket, Key=key, Body=content)
                sent += 1
        client.put_object(Bucket=bucket, Key=f"{prefix}/{MARKER}", Body=b"")
    except (BotoCoreError, ClientError) as error:
        raise DatasetError(address, str(error), "a writable bucket", _CURE) from error
    return sent


def _places(keys: Iterable[str], prefix: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The file of each object, without those that would lie outside of the folder."""
    for key in keys:
        place = folder / (Path(key).name if key == prefix else key[len(prefix) :].lstrip("/"))
        if folder.resolve() in place.resolve().parents and not key.endswith("/"):
            yield key, place


def _digest(content: bytes) -> str:
    """What S3 calls the tag of an object that was sent in one piece."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _require_own(there: Iterable[str], keys: Container[str], address: str) -> None:
    strange = [key for key in there if key not in keys]
    if strange:
        cure = "Another conversion may have been stopped there: delete its objects, or name another prefix."
        raise DatasetError(address, f"{len(strange)} other objects, such as {strange[0]}", "an empty prefix", cure)


def _split(address: str) -> tuple[str, str]:
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if not bucket or not prefix.strip("/"):
        raise DatasetError("address", address, "s3://bucket/prefix", "Name a prefix in the bucket.")
    return bucket, prefix.strip("/")


def _listed(client: Any, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for row in page.get("Contents", ()):
            yield row["Key"], row["ETag"].strip('"')


def _client() -> Any:
    return boto3.client("s3")
