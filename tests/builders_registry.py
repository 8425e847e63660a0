"""A shared registry on moto's S3 over HTTP, which a test can take away and bring back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from ml_backend.bundle import ModelBundle, champion_version
from training import registry
from training.gate import GateDecision
from training.remote import RemoteRegistry

BUCKET, ADDRESS = "models", "s3://models/skin"
LOGIN = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class SharedRegistry:
    """A store on one port, and the registry in it."""

    port: int = 0
    server: ThreadedMotoServer | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.endpoint)

    @property
    def settings(self) -> dict[str, str]:
        """What a serving process is told of it."""
        return {**LOGIN, "DERMLOOP_ML_REGISTRY": ADDRESS, "DERMLOOP_ML_S3_ENDPOINT": self.endpoint}

    def start(self) -> None:
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    def empty(self) -> None:
        """Deletes every object."""
        for row in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
            self.client.delete_object(Bucket=BUCKET, Key=row["Key"])

    def promote(self, one: ModelBundle) -> None:
        """Promotes a bundle from the machine whose models folder it lies in."""
        decision = GateDecision(True, "clinical", one.version, None)
        there = RemoteRegistry(ADDRESS)
        registry.promote(one.root.parent, one.version, decision, why="better", who="ada", shared=there)

    def rollback(self, models: Path) -> str:
        """The version that is champion again."""
        registry.rollback(models, why="worse in use", who="ada", shared=RemoteRegistry(ADDRESS))
        return str(champion_version(models))


@contextmanager
def shared_registry() -> Iterator[SharedRegistry]:
    """A running store with an empty registry; the environment leads this process to it."""
    made = SharedRegistry()
    made.start()
    given = {**LOGIN, "AWS_ENDPOINT_URL": made.endpoint}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    made.client.create_bucket(Bucket=BUCKET)
    try:
        yield made
    finally:
        if made.server is None:
            made.start()
        made.empty()
        made.client.delete_bucket(Bucket=BUCKET)
        made.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
