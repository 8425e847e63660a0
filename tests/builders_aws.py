"""AWS on this machine: moto's server over real HTTP, credentials for it, and a deployed stack to work on."""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote_plus

import botocore.loaders
import botocore.session
import pytest
import requests
from moto.cloudformation.models import ChangeSet
from moto.cloudformation.parsing import ResourceMap
from moto.server import ThreadedMotoServer

from dermloop.aws.clients import Aws, forget_clients
from dermloop.aws.stack import Stack

REGION = "eu-central-1"
ACCOUNT = "123456789012"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/dermloop:1"
BUCKET = f"dermloop-data-{ACCOUNT}-{REGION}"


@contextmanager
def moto() -> Iterator[str]:
    """The address of a server that answers as AWS does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChangeSet, "apply", _apply)
        patch.setattr(ResourceMap, "_delete_resource", _delete)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


def reset(server: str) -> None:
    """Empties a moto server; functions are not run there, which would need Docker."""
    requests.post(f"{server}/moto-api/reset", timeout=10).raise_for_status()
    config = {"lambda": {"use_docker": False}}
    requests.post(f"{server}/moto-api/config", json=config, timeout=10).raise_for_status()


def _delete(resources: ResourceMap, found: Any, row: dict[str, Any], plain: Any = ResourceMap._delete_resource) -> None:
    """Deletes a resource of a stack, unless its deletion policy keeps it: moto does not read that."""
    if not str(row.get("DeletionPolicy", "")).startswith("Retain"):
        plain(resources, found, row)


def _apply(change: ChangeSet, plain: Callable[[ChangeSet], None] = ChangeSet.apply) -> None:
    """What moto does with a change set, and what it forgets: an update leaves out resources whose condition is false,
    and template, parameters and outputs are then the stack's."""
    if change.change_set_type == "UPDATE":
        holds, resources = change.stack.resource_map.lazy_condition_map, change.template_dict["Resources"]
        left_out = [name for name, row in resources.items() if "Condition" in row and not holds[row["Condition"]]]
        for name in left_out:
            del resources[name]
    plain(change)
    change.stack.template, change.stack.parameters = change.template, change.parameters
    change.stack._parse_template()
    change.stack.output_map = change.stack._create_output_map()


@contextmanager
def signed_in(endpoint: str, **more: str) -> Iterator[None]:
    """An environment whose credentials and addresses lead to this machine, and nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        values = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "DERMLOOP_AWS_POLL_SECONDS": "0.05",
            **more,
        }
        patch.setattr(botocore.session, "create_loader", _loader)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in values.items():
            patch.setenv(name, value)
        forget_clients()
        yield
        forget_clients()


@functools.cache
def _loader(path: str | None = None) -> Any:
    """One reader of the services' descriptions for all sessions: reading them takes longer than most tests."""
    return botocore.loaders.create_loader(path)


def stack(told: list[str] | None = None, name: str = "dermloop") -> Stack:
    """The stack of the environment's region; what it says is kept in a list."""
    said = told if told is not None else []
    return Stack(Aws(), name, said.append, 0.02)


def created(key: str, bucket: str = BUCKET) -> str:
    """The body of a queue message on an object that was put into the bucket."""
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}}}
    return json.dumps({"Records": [record]})


def messages(queue: str) -> list[dict[str, Any]]:
    """Bodies of what lies in a queue; they stay there."""
    found = Aws().client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
    return [json.loads(row["Body"]) for row in found.get("Messages", ())]


class ScriptedAws:
    """A server that gives each operation the answers it is told to, the last one for ever: what moto cannot play."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, str]]] = {}
        self.asked: list[tuple[str, str]] = []

    def answer(self, operation: str, *bodies: str, status: int = 200) -> None:
        """The bodies that an operation (`*` is any other) is answered with, in turn."""
        self.answers[operation] = [(status, body) for body in bodies]

    def refuse(self, code: str, words: str = "said no", status: int = 403, operation: str = "*") -> None:
        """Refuses an operation as AWS does, in every one of its wire forms."""
        told = f"<ErrorResponse><Error><Code>{code}</Code><Message>{words}</Message></Error></ErrorResponse>"
        self.answers[operation] = [(status, told)]

    def next(self, operation: str) -> tuple[int, str]:
        """The answer whose turn it is."""
        queue = self.answers.get(operation) or self.answers.get("*") or [(404, f"<Error>{operation}</Error>")]
        return queue.pop(0) if len(queue) > 1 else queue[0]


@contextmanager
def scripted() -> Iterator[tuple[str, ScriptedAws]]:
    """The address of a scripted server, and the script."""
    script = ScriptedAws()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            target = self.headers.get("X-Amz-Target", "")
            operation = target.rpartition(".")[2] or parse_qs(body).get("Action", [self.path])[0]
            script.asked.append((operation, body))
            status, text = script.next(operation)
            self._send(status, text, "application/x-amz-json-1.1" if target else "text/xml")

        def do_GET(self) -> None:
            script.asked.append((self.command, self.path))
            self._send(*script.next(self.command), "text/xml")

        do_PUT = do_HEAD = do_DELETE = do_GET

        def _send(self, status: int, text: str, kind: str) -> None:
            if kind != "text/xml" and text.startswith("<ErrorResponse>"):
                code, words = (re.search(rf"<{name}>(.*?)</", text)[1] for name in ("Code", "Message"))  # type: ignore[index]
                text = json.dumps({"__type": code, "message": words})
            elif kind == "text/xml" and not self.path.startswith("/?") and self.command != "POST":
                text = re.sub("</?ErrorResponse>", "", text)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", script
    server.shutdown()
    server.server_close()
    thread.join()
