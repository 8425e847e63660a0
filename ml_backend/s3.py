"""The one door to S3: objects read within limits, results stored beside them, with the environment's credentials."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import orjson

from ml_backend.errors import FetchError, StoreError

_CHUNK = 1 << 20
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_KEPT_HEADERS = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's head: place, entity tag, size in bytes, its own metadata, and the headers to keep on marking."""

    bucket: str
    key: str
    etag: str
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class ObjectStore:
    """S3 or a store that speaks its protocol; connects on first use."""

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint
        self._turn = threading.Lock()
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The boto3 client, made on first use and shared by all threads."""
        with self._turn:
            if self._client is None:
                import boto3
                from botocore.config import Config

                settings = Config(connect_timeout=3, read_timeout=15, retries={"max_attempts": 2})
                self._client = boto3.session.Session().client("s3", endpoint_url=self._endpoint, config=settings)
            return self._client

    def read(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """The bytes of an object; raises FetchError where it is missing, too large or refused."""
        item = f"s3://{bucket}/{key}"
        try:
            with _told(item):
                content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read(max_bytes + 1)
        except StoreError as error:
            raise FetchError(item, error.value, "a readable object", "Check key and credentials.") from error
        if len(content) > max_bytes:
            raise FetchError(item, "more bytes", f"at most {max_bytes}", "Scale the image down.")
        return content

    def look(self, bucket: str, key: str) -> bytes | None:
        """The bytes of a small object, or None where there is none; raises StoreError where it cannot be asked for."""
        try:
            with _told(f"s3://{bucket}/{key}"):
                return bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())
        except StoreError as error:
            if error.value in _MISSING:
                return None
            raise

    def fetch(self, bucket: str, key: str, target: Path) -> str:
        """The SHA-256 of an object's bytes, which are in a file now; raises StoreError where they cannot be had."""
        digest = hashlib.sha256()
        with _told(f"s3://{bucket}/{key}"), target.open("wb") as sink:
            for chunk in self.client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(_CHUNK):
                digest.update(chunk)
                sink.write(chunk)
        return digest.hexdigest()

    def head(self, bucket: str, key: str) -> StoredObject | None:
        """What is known of an object without reading it, or None where there is none; raises StoreError otherwise."""
        try:
            with _told(f"s3://{bucket}/{key}"):
                found = self.client.head_object(Bucket=bucket, Key=key)
        except StoreError as error:
            if error.value in _MISSING:
                return None
            raise
        headers = {name: str(found[name]) for name in _KEPT_HEADERS if found.get(name)}
        return StoredObject(
            bucket, key, str(found["ETag"]), int(found["ContentLength"]), dict(found.get("Metadata", {})), headers
        )

    def put_json(self, bucket: str, key: str, row: Mapping[str, Any]) -> None:
        """Stores a JSON object; raises StoreError where that fails."""
        with _told(f"s3://{bucket}/{key}"):
            body = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
            self.client.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json")

    def put(self, bucket: str, key: str, content: IO[bytes], like: StoredObject | None = None) -> None:
        """Stores an object with the metadata and headers of another one; raises StoreError where that fails."""
        kept = {"Metadata": dict(like.metadata), **like.headers} if like else {}
        with _told(f"s3://{bucket}/{key}"):
            self.client.put_object(Bucket=bucket, Key=key, Body=content, **kept)

    def mark(self, found: StoredObject, additions: Mapping[str, str]) -> None:
        """Adds to an object's metadata, if it is still the same object; raises StoreError where it is not."""
        item = f"s3://{found.bucket}/{found.key}"
        current = self.head(found.bucket, found.key)
        if current is None or current.etag != found.etag:
            raise StoreError(item, "another object", "the object that was read", "It is read again.")
        with _told(item):
            self.client.copy_object(
                Bucket=found.bucket,
                Key=found.key,
                CopySource={"Bucket": found.bucket, "Key": found.key},
                CopySourceIfMatch=found.etag,
                MetadataDirective="REPLACE",
                Metadata={**found.metadata, **additions},
                **found.headers,
            )

    def keys(self, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Key and entity tag of every object below a prefix; raises StoreError where the bucket cannot be listed."""
        with _told(f"s3://{bucket}/{quote(prefix)}"):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                yield from ((str(row["Key"]), str(row["ETag"])) for row in page.get("Contents", ()))


_ENDPOINT = "Check the endpoint and the credentials."


@contextmanager
def _told(item: str) -> Iterator[None]:
    """Turns what botocore raises into one StoreError that names the object and the store's own code."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code") or "ClientError")
        raise StoreError(item, code, "the store to accept it", "Check key, bucket and credentials.") from error
    except BotoCoreError as error:
        raise StoreError(item, type(error).__name__, "an answer from the store", _ENDPOINT) from error
