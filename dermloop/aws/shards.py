"""A backfill on S3: which pictures it reads, in shards; what was answered; and each answer beside its picture.

Below `backfill/<name>/`: `in/` holds the lines that are asked, `out/` the answers, `joined/` one record for each shard
whose answers lie beside the pictures. The plan is written last and never changes: an interrupted backfill goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson

from dermloop.aws.clients import Aws, told
from dermloop.errors import AwsMissingError, BackfillError
from ml_backend.objects import RESULT_SUFFIX, is_picture

_WRITERS = 16
_FOLDER = "backfill"


@dataclass(frozen=True, slots=True)
class Joined:
    """A shard whose answers lie beside the pictures: how many were read, were unreadable, or wait for another try."""

    read: int
    unreadable: int
    again: int
    rows: tuple[Mapping[str, Any], ...] = ()


class Shards:
    """The shards of one backfill."""

    def __init__(self, aws: Aws, bucket: str, name: str) -> None:
        self.name = name
        self._aws = aws
        self._bucket = bucket

    def address(self, *parts: str) -> str:
        """An address in the backfill's folder."""
        return "/".join((f"s3://{self._bucket}", _FOLDER, self.name, *parts))

    def plan(self, source: str, prefix: str, size: int, everything: bool) -> tuple[str, ...]:
        """Names of the shards: those of the plan that is there, else of one made now from the pictures below a prefix.

        Pictures that have a result are left out unless `everything`. Raises BackfillError where there is no picture.
        """
        if (known := self._read("plan.json")) is not None:
            return self._known(orjson.loads(known), f"s3://{source}/{prefix}")
        listed = dict(self._listed(source, prefix))
        wanted = [(key, tag) for key, tag in listed.items() if is_picture(key)]
        if not wanted:
            raise BackfillError(f"s3://{source}/{prefix}", "no picture", "JPEG or PNG files", "Check the address.")
        if not everything:
            wanted = [(key, tag) for key, tag in wanted if key + RESULT_SUFFIX not in listed]
        names: list[str] = []
        for start in range(0, len(wanted), size):
            rows = [{"s3": f"s3://{source}/{key}", "etag": tag} for key, tag in wanted[start : start + size]]
            names.append(f"{len(names):05}.jsonl")
            self._write(f"in/{names[-1]}", b"".join(orjson.dumps(row) + b"\n" for row in rows))
        plan = {"source": f"s3://{source}/{prefix}", "pictures": len(wanted), "shards": names}
        self._write("plan.json", orjson.dumps(plan))
        return tuple(names)

    def pending(self, names: Sequence[str]) -> tuple[str, ...]:
        """Shards that have no whole answers beside their pictures yet."""
        done = {key.rpartition("/")[2] for key, _ in self._listed(self._bucket, f"{_FOLDER}/{self.name}/joined/")}
        return tuple(name for name in names if f"{name}.json" not in done)

    def asked(self, shard: str) -> list[dict[str, str]]:
        """The lines of a shard; raises BackfillError where they are gone."""
        content = self._read(f"in/{shard}")
        if content is None:
            raise BackfillError(
                self.address("in", shard), "not there", "a shard of the plan", "Start under a new name."
            )
        return [orjson.loads(line) for line in content.splitlines()]

    def manifest(self, names: Sequence[str], attempt: str) -> str:
        """The address of a manifest that names these shards."""
        rows: list[Any] = [{"prefix": f"{self.address('in')}/"}, *names]
        self._write(f"manifests/{attempt}.json", orjson.dumps(rows))
        return self.address("manifests", f"{attempt}.json")

    def answer(self, shard: str, lines: Sequence[bytes]) -> None:
        """Keeps the answers of a shard, as a transform job does."""
        self._write(f"out/{shard}.out", b"".join(line.rstrip(b"\n") + b"\n" for line in lines))

    def answered(self) -> dict[str, str]:
        """Where the answers of each shard lie that has some."""
        found = (key for key, _ in self._listed(self._bucket, f"{_FOLDER}/{self.name}/out/") if key.endswith(".out"))
        return {key.rpartition("/")[2].removesuffix(".out"): key for key in found}

    def join(self, shard: str, key: str) -> Joined:
        """Puts every answer of a shard beside its picture; the shard is done where none waits for another try.

        Raises BackfillError where lines and answers do not belong together; then nothing of the shard is written.
        """
        asked = self.asked(shard)
        rows = self._answers(shard, key, asked)
        settled = [(line, row) for line, row in zip(asked, rows, strict=True) if not row.get("again")]
        with ThreadPoolExecutor(_WRITERS) as writers:
            list(writers.map(lambda pair: self._put_beside(*pair), settled))
        unreadable = sum("error" in row for _, row in settled)
        kept = tuple(row for _, row in settled)
        found = Joined(len(settled) - unreadable, unreadable, len(asked) - len(settled), kept)
        if not found.again:
            self._write(f"joined/{shard}.json", orjson.dumps({"read": found.read, "unreadable": unreadable}))
        return found

    def _answers(self, shard: str, key: str, asked: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        item, cure = f"s3://{self._bucket}/{key}", "Remove this object and run the same command again."
        try:
            rows: list[dict[str, Any]] = [
                orjson.loads(line) for line in self._get(self._bucket, key).splitlines() if line
            ]
        except orjson.JSONDecodeError as error:
            raise BackfillError(item, str(error), "JSON lines", cure) from error
        if [row.get("s3") for row in rows] != [line["s3"] for line in asked]:
            expected = f"an answer to each of the {len(asked)} lines of {shard}, in their order"
            raise BackfillError(item, f"{len(rows)} answers", expected, cure)
        return rows

    def _put_beside(self, line: Mapping[str, str], row: Mapping[str, Any]) -> None:
        bucket, _, key = line["s3"].removeprefix("s3://").partition("/")
        kept = {name: value for name, value in row.items() if name not in ("s3", "again")}
        body = orjson.dumps({"key": key, "etag": line["etag"], **kept}, option=orjson.OPT_SORT_KEYS)
        with told(f"s3://{bucket}/{key}{RESULT_SUFFIX}"):
            self._s3.put_object(Bucket=bucket, Key=key + RESULT_SUFFIX, Body=body, ContentType="application/json")

    @property
    def _s3(self) -> Any:
        return self._aws.client("s3")

    def _known(self, plan: Mapping[str, Any], source: str) -> tuple[str, ...]:
        if plan["source"] != source:
            cure = "Name this backfill otherwise with --name."
            raise BackfillError(f"backfill {self.name}", source, f"its source {plan['source']}", cure)
        return tuple(plan["shards"])

    def _listed(self, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
        with told(f"bucket {bucket}"):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                yield from ((str(row["Key"]), str(row["ETag"])) for row in page.get("Contents", ()))

    def _get(self, bucket: str, key: str) -> bytes:
        with told(f"s3://{bucket}/{key}"):
            return bytes(self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    def _read(self, name: str) -> bytes | None:
        try:
            return self._get(self._bucket, f"{_FOLDER}/{self.name}/{name}")
        except AwsMissingError:
            return None

    def _write(self, name: str, body: bytes) -> None:
        key = f"{_FOLDER}/{self.name}/{name}"
        with told(f"s3://{self._bucket}/{key}"):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
