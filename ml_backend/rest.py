"""Routes for programs: pictures in, readings out, and what an operator wants to know."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.datastructures import FileStorage

from ml_backend import answers, openapi
from ml_backend.bundle import list_bundles
from ml_backend.composition import Parts
from ml_backend.errors import NotFoundError, NotUploadedError
from ml_backend.objects import stored_result
from ml_backend.service import Analysis, Picture
from telemetry.metrics import CONTENT_TYPE

MAX_PICTURES = 64
_PAGE = Path(__file__).with_name("page")
_PAGE_POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"
_PAGE_PARTS = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def blueprint(parts: Parts) -> Blueprint:
    """The routes, answering with these parts."""
    routes = Blueprint("rest", __name__)

    @routes.post("/v1/analyze")
    def analyze() -> Response:
        heatmap = request.args.get("heatmap", "").lower() in ("1", "true", "yes")
        found = _analysed(parts, _files(), heatmap)
        results = [answers.analysed(outcome, found.bundle, heatmap) for outcome in found.outcomes]
        return jsonify({"model_version": found.bundle.version, "disclaimer": answers.DISCLAIMER, "results": results})

    @routes.get("/v1/overlay")
    def heatmap() -> Response:
        return Response(_heatmap(parts, request.args.get("image", "")), mimetype="image/jpeg")

    @routes.get("/v1/models")
    def models() -> Response:
        serving = parts.host.serving
        described = answers.model(serving) if serving else None
        return jsonify({"serving": described, "versions": list(list_bundles(parts.host.models))})

    @routes.get("/detect/<path:key>")
    def detect(key: str) -> Response:
        return jsonify(_stored(parts, key))

    @routes.get("/openapi.json")
    def description() -> Response:
        return jsonify(openapi.document())

    @routes.get("/metrics")
    def metrics() -> Response:
        page = parts.metrics.page(parts.host.state)
        return Response(page, content_type=CONTENT_TYPE)

    @routes.get("/healthz")
    def alive() -> Response:
        return jsonify({"status": "ok"})

    @routes.get("/readyz")
    def ready() -> tuple[Response, int]:
        state = parts.host.state
        status = 200 if state.version else 503
        answer = {"ready": state.version is not None, "model_version": state.version, "loading": state.loading}
        return jsonify({**answer, "error": state.error} if state.error else answer), status

    @routes.get("/ready")
    def matched() -> tuple[Response, int]:
        answer, status = ready()
        unmatched = {project: list(problems) for project, problems in parts.unmatched.items()}
        return jsonify({**(answer.get_json() or {}), "unmatched": unmatched}), status

    @routes.get("/")
    def page() -> Response:
        return _page_file("index.html")

    @routes.get("/<any('page.css', 'page.js', 'icon.svg'):name>")
    def page_part(name: str) -> Response:
        return _page_file(name)

    return routes


def predict_upload(parts: Parts) -> Response:
    """The answer to `POST /predict` with a picture in the multipart field `image`; raises what the picture raised."""
    files = _files()
    if len(files) > 1:
        raise NotUploadedError("multipart field image", f"{len(files)} files", "one picture", "Use /v1/analyze.")
    found = _analysed(parts, files)
    (outcome,) = found.outcomes
    return jsonify(answers.uploaded(outcome.required(), found.bundle))


def _heatmap(parts: Parts, address: str) -> bytes:
    """The heat-map of the picture at an address that tasks may carry; raises what the picture raised."""
    picture = Picture("image", functools.partial(parts.source.fetch, address))
    found = parts.service.analyse([picture], parts.settings.predict_seconds, keep_pixels=True)
    (outcome,) = found.outcomes
    prediction = outcome.required()
    assert outcome.image is not None, "pixels were asked for"
    return answers.heatmap_of(outcome.image, prediction, found.bundle)


def _stored(parts: Parts, key: str) -> dict[str, Any]:
    bucket = parts.settings.results_bucket
    if bucket is None:
        raise NotFoundError(f"object {key}", None, "a bucket", "Set DERMLOOP_ML_ALLOWED_BUCKETS.")
    found = stored_result(parts.store, bucket, key)
    if found is None:
        cure = "Upload the picture, or wait until it has been analysed."
        raise NotFoundError(f"object {key}", "no result", "an analysed picture", cure)
    return found


def _files() -> list[FileStorage]:
    files = request.files.getlist("image")
    if not files:
        cure = "Send multipart/form-data with a file in the field `image`."
        raise NotUploadedError("multipart field image", None, "a JPEG or PNG file", cure)
    if len(files) > MAX_PICTURES:
        raise NotUploadedError("multipart field image", f"{len(files)} files", f"at most {MAX_PICTURES}", "Send fewer.")
    return files


def _analysed(parts: Parts, files: list[FileStorage], keep_pixels: bool = False) -> Analysis:
    pictures = [Picture(f"image {number}", functools.partial(_content, file)) for number, file in enumerate(files, 1)]
    found = parts.service.analyse(pictures, parts.settings.predict_seconds, keep_pixels=keep_pixels)
    parts.metrics.analysed(found)
    return found


def _content(file: FileStorage) -> bytes:
    return file.stream.read()


def _page_file(name: str) -> Response:
    response = Response((_PAGE / name).read_bytes(), mimetype=_PAGE_PARTS[name])
    response.headers["Content-Security-Policy"] = _PAGE_POLICY
    return response
