"""AWS Lambda: objects created in a bucket (straight from S3 or through a queue), and requests through API Gateway."""

from __future__ import annotations

import base64
import functools
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_plus, urlencode

from flask import Flask
from werkzeug.test import EnvironBuilder, run_wsgi_app

from ml_backend.app import create_app
from ml_backend.composition import Parts
from ml_backend.errors import FetchError, ServingError, StoreError
from ml_backend.objects import analyse_object
from ml_backend.settings import read_settings

_log = logging.getLogger(__name__)
_Event = Mapping[str, Any]


@functools.cache
def application() -> Flask:
    """The application for the environment's settings, made once for a warm function."""
    return create_app(read_settings())


def on_object_created(event: _Event, _context: object = None) -> dict[str, Any]:
    """Reads every created picture; answers which queue messages failed, so that only those come again.

    An event straight from S3 has no messages: a failure there is raised after the other objects are done, and S3's
    retry finds those current. Raises StoreError then.
    """
    parts: Parts = application().extensions["dermloop"]
    failed: list[str] = []
    direct: list[str] = []
    for record in event.get("Records", ()):
        message_id = str(record["messageId"]) if record.get("eventSource") == "aws:sqs" else None
        try:
            for bucket, key in _created(_event_of(record)):
                _handle(parts, bucket, key)
        except (ServingError, ValueError, KeyError, TypeError) as error:
            _log.error("left for another try: %s", type(error).__name__)
            (direct if message_id is None else failed).append(message_id or str(error))
    if direct:
        raise StoreError("S3 event", direct, "every object analysed", "The event is sent again.")
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def on_request(event: _Event, _context: object = None) -> dict[str, Any]:
    """The application's answer to a request through API Gateway (payload format 1.0 or 2.0)."""
    body = event.get("body") or ""
    content = base64.b64decode(body) if event.get("isBase64Encoded") else str(body).encode()
    http = event.get("requestContext", {}).get("http", {})
    builder = EnvironBuilder(
        path=str(event.get("rawPath") or event.get("path") or "/"),
        method=str(http.get("method") or event.get("httpMethod") or "GET"),
        query_string=_query(event),
        headers=list(_headers(event)),
        data=content,
    )
    environ = builder.get_environ()
    builder.close()
    chunks, status, headers = run_wsgi_app(application(), environ, buffered=True)
    answer = b"".join(chunks)
    return {
        "statusCode": int(status.split(" ", 1)[0]),
        "headers": dict(headers.items()),
        "body": base64.b64encode(answer).decode(),
        "isBase64Encoded": True,
    }


def _handle(parts: Parts, bucket: str, key: str) -> None:
    if bucket not in parts.settings.allowed_buckets:
        cure = "Add it to DERMLOOP_ML_ALLOWED_BUCKETS."
        raise FetchError(f"bucket {bucket}", "not listed", "an allowed bucket", cure)
    outcome = analyse_object(parts.store, parts.service, bucket, key, parts.settings.max_bytes)
    _log.info("object %s", outcome.state.value)


def _event_of(record: _Event) -> _Event:
    """S3's event inside a queue message, or around a record that came directly."""
    if record.get("eventSource") != "aws:sqs":
        return {"Records": [record]}
    found: _Event = json.loads(record.get("body") or "{}")
    return found


def _created(event: _Event) -> Iterator[tuple[str, str]]:
    for record in event.get("Records", ()):
        if str(record.get("eventName", "ObjectCreated:")).startswith("ObjectCreated"):
            found = record["s3"]
            yield str(found["bucket"]["name"]), unquote_plus(str(found["object"]["key"]))


def _query(event: _Event) -> str:
    if "rawQueryString" in event:
        return str(event["rawQueryString"])
    pairs = event.get("multiValueQueryStringParameters") or {}
    return urlencode([(name, value) for name, values in pairs.items() for value in values])


def _headers(event: _Event) -> Iterator[tuple[str, str]]:
    many = event.get("multiValueHeaders")
    if many:
        yield from ((name, value) for name, values in many.items() for value in values)
    else:
        yield from ((name, str(value)) for name, value in (event.get("headers") or {}).items())
