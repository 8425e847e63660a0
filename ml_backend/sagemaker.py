"""The pipeline in a SageMaker container: `/ping` and `/invocations`, for real-time endpoints and batch transform.

`python -m ml_backend.sagemaker serve` is the container's entry point; IAM guards it from outside, so nothing here asks
for a login. The model's archive unpacks to a models folder: bundles, and `champion.json` naming one.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from ml_backend import answers, composition, server
from ml_backend.app import status_of
from ml_backend.composition import Parts
from ml_backend.errors import FetchError, NoModelError, ProtocolError, ServingError, UnreadableImageError
from ml_backend.service import Picture
from ml_backend.settings import Settings, read_settings

MODEL = Path("/opt/ml/model")
PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
PICTURES = ("image/jpeg", "image/png", "application/x-image")
JSON, LINES = "application/json", ("application/jsonlines", "application/jsonl", "application/x-jsonlines")
_MOST_LINES = 1000
_FINAL = frozenset({"NoSuchKey", "NoSuchBucket", "404", "not listed", "more bytes"})
"""Why an object cannot be had, where another try would not help."""

_SECONDS = 55.0
"""SageMaker waits 60 s for an answer of a real-time endpoint."""


def create_endpoint(settings: Settings, parts: Parts | None = None) -> Flask:
    """The container's application; models load in the background, and `/ping` says when they are there."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_bytes + 65_536
    own = parts or composition.build(settings)
    app.extensions["dermloop"] = own
    app.register_error_handler(ServingError, lambda error: _problem(str(error), status_of(error)))
    app.register_error_handler(HTTPException, lambda error: _problem(str(error.description), error.code or 500))

    @app.get("/ping")
    def ping() -> tuple[Response, int]:
        state = own.host.state
        return jsonify({"model_version": state.version, "error": state.error}), 200 if state.version else 503

    @app.post("/invocations")
    def invocations() -> Response:
        return _answer(own, (request.mimetype or "").lower(), request.get_data())

    return app


def main(words: Sequence[str]) -> None:
    """Serves until told to stop; `serve` is the only word that SageMaker says."""
    if list(words) != ["serve"]:
        raise SystemExit(f"dermloop's serving container was started with {list(words)}; expected ['serve'].")
    port = int(os.environ.get(PORT_VARIABLE, "8080"))
    os.environ.setdefault("DERMLOOP_ML_MODELS", str(MODEL))
    os.environ.setdefault("DERMLOOP_ML_HOME", "/tmp/dermloop")
    server.run(functools.partial(create_endpoint, read_settings()), f"0.0.0.0:{port}", "dermloop-endpoint")


def _answer(parts: Parts, kind: str, body: bytes) -> Response:
    if kind in PICTURES:
        (row,) = _read(parts, [Picture("picture", lambda: body)])
        return _one(row)
    if kind == JSON:
        (row,) = _rows(parts, [body])
        return _one(row)
    if kind in LINES:
        lines = [line for line in body.splitlines() if line.strip()]
        if len(lines) > _MOST_LINES:
            raise ProtocolError("lines", len(lines), f"at most {_MOST_LINES}", "Send them in several requests.")
        return Response(b"".join(orjson.dumps(row) + b"\n" for row in _rows(parts, lines)), mimetype=LINES[0])
    expected = f"one of {', '.join((*PICTURES, JSON, *LINES))}"
    raise ProtocolError("Content-Type", kind, expected, "Name the type of the body.")


def _one(row: dict[str, Any]) -> Response:
    """A single answer; a picture that cannot be read is an error of the request here, and not in lines."""
    if "error" in row:
        return _problem(str(row["error"]), 503 if row["again"] else 422)
    return jsonify(row)


def _rows(parts: Parts, lines: Iterable[bytes]) -> list[dict[str, Any]]:
    addresses = [_address(line) for line in lines]
    pictures = [Picture(address, functools.partial(parts.source.fetch, address)) for address in addresses]
    return [{"s3": one, **row} for one, row in zip(addresses, _read(parts, pictures), strict=True)]


def _address(line: bytes) -> str:
    expected = '{"s3": "s3://bucket/key"}'
    try:
        found = str(orjson.loads(line)["s3"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ProtocolError("line", line[:80], expected, "Correct the line.") from error
    if urlsplit(found).scheme != "s3":
        raise ProtocolError("line", found[:80], expected, "Upload the picture to the bucket.")
    return found


def _read(parts: Parts, pictures: Sequence[Picture]) -> Iterator[dict[str, Any]]:
    """One row for each picture; `again` marks an error that another try may not meet."""
    if parts.host.state.version is None:
        raise NoModelError("model", parts.host.state.error or "still loading", "a loaded bundle", "Wait for /ping.")
    found = parts.service.analyse(pictures, _SECONDS)
    for outcome in found.outcomes:
        row = answers.analysed(outcome, found.bundle)
        if outcome.error is not None:
            row["again"] = not _is_final(outcome.error)
        yield {"model_version": found.bundle.version, "disclaimer": answers.DISCLAIMER, **row}


def _is_final(error: ServingError) -> bool:
    return isinstance(error, UnreadableImageError) or (isinstance(error, FetchError) and error.value in _FINAL)


def _problem(reason: str, status: int) -> Response:
    response = jsonify({"error": reason})
    response.status_code = status
    return response


if __name__ == "__main__":
    main(sys.argv[1:])
