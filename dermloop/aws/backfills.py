"""The command `dermloop aws backfill`: its wishes put together with the stack, the model and the reader."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from dermloop.aws.backfill import Backfilled, ContainerReader, Reader, TransformReader, backfill, register_model
from dermloop.aws.clients import Aws
from dermloop.aws.settings import AwsSettings
from dermloop.aws.shards import Shards
from dermloop.aws.stack import Stack
from dermloop.errors import BackfillError
from training import registry

_IMAGE_CURE = "Build docker/sagemaker/serve.Dockerfile, push it, and `dermloop aws deploy --set EndpointImage=ADDRESS`."


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asked of a backfill, as the command's options say it."""

    source: str
    name: str
    model: str
    home: Path
    endpoints: tuple[str, ...]
    size: int
    everything: bool
    out: Path | None


def run(aws: Aws, stack: Stack, settings: AwsSettings, wish: Wish, say: Callable[[str], None]) -> Backfilled:
    """How far the backfill is after this run; raises BackfillError or AwsError."""
    bucket, _, prefix = wish.source.removeprefix("s3://").partition("/")
    if not wish.source.startswith("s3://") or not bucket:
        raise BackfillError("source", wish.source, "s3://bucket/prefix", "Name where the pictures lie.")
    view = stack.view()
    work = view.output("Bucket") if view.outputs or not wish.endpoints else bucket
    model = "" if wish.endpoints else registry.load_bundle(wish.home / "models", wish.model).version
    name = wish.name or f"b-{hashlib.sha256(f'{wish.source}|{model}'.encode()).hexdigest()[:12]}"
    say(f"Backfill {name} of {wish.source}.")
    with _kept(wish.out) as each:
        reader = _reader(aws, stack, settings, wish, work, say)
        shards = Shards(aws, work, name)
        return backfill(shards, (bucket, prefix), reader, wish.size, wish.everything, each, say)


def _reader(
    aws: Aws, stack: Stack, settings: AwsSettings, wish: Wish, bucket: str, say: Callable[[str], None]
) -> Reader:
    if wish.endpoints:
        return ContainerReader(wish.endpoints, settings.backfill_parallel * len(wish.endpoints))
    view = stack.view()
    image, role = view.output("EndpointImage", _IMAGE_CURE), view.output("ServingRoleArn")
    bundle = registry.load_bundle(wish.home / "models", wish.model)
    return TransformReader(aws, settings, register_model(aws, bundle, bucket, image, role), say)


@contextmanager
def _kept(out: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Something that takes each answer, written to a file where one is named."""
    if out is None:
        yield lambda row: None
        return
    with out.open("ab") as stream:

        def keep(row: Mapping[str, Any]) -> None:
            stream.write(orjson.dumps(row) + b"\n")

        yield keep
