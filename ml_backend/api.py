"""Label Studio's routes: `/health`, `/setup`, `/predict`, `/versions`, `/webhook`, `/job_status`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request

from ml_backend import protocol, rest
from ml_backend.bundle import DetectorTask, list_bundles
from ml_backend.composition import Parts
from ml_backend.errors import JobError, MediaTypeError
from ml_backend.label_config import read_config, unmatched
from ml_backend.protocol import START_TRAINING

if TYPE_CHECKING:
    from ml_backend.jobs import Job
    from ml_backend.model import DermloopModel

_NEWEST = "newest"
"""Asked for in a job's place: the retraining that was asked for last, from wherever."""


def blueprint(parts: Parts) -> Blueprint:
    """The routes, answering with these parts."""
    routes = Blueprint("label_studio", __name__)

    @functools.cache
    def model() -> DermloopModel:
        """The one model object of the application; label-studio-ml is imported when it is first needed."""
        from ml_backend.model import DermloopModel

        return DermloopModel(parts=parts)

    @routes.get("/health")
    def health() -> Response:
        state = parts.host.state
        return jsonify({"status": "UP", "model_class": "DermloopModel", "model_version": state.version})

    @routes.post("/setup")
    def setup() -> Response:
        body = protocol.decode_setup(request.get_json(silent=True))
        config = read_config(body.label_config, parts.taxonomy)
        bundle = parts.host.serving
        target = bundle.classifier.target if bundle and bundle.classifier else None
        outlines = bool(bundle and bundle.detector and bundle.detector.task is DetectorTask.SEGMENT)
        problems = unmatched(config, target, parts.taxonomy, outlines) if bundle else config.problems
        parts.unmatched[body.project] = problems
        return jsonify({"model_version": bundle.version if bundle else None, "unmatched": list(problems)})

    @routes.post("/predict")
    def predict() -> Response:
        if request.mimetype == "multipart/form-data":
            return rest.predict_upload(parts)
        if not request.is_json:
            expected = "multipart/form-data with a file in the field `image`, or Label Studio's application/json"
            raise MediaTypeError("Content-Type", request.mimetype, expected, "Send one of these.")
        body = protocol.decode_predict(request.get_json(silent=True))
        found = model().answer(body)
        answer: dict[str, Any] = {"results": found.entries, "model_version": found.version}
        return jsonify({**answer, "left_out": found.left_out} if found.left_out else answer)

    @routes.route("/versions", methods=["GET", "POST"])
    def versions() -> Response:
        found = list_bundles(parts.host.models)
        return jsonify({"versions": list(found), "model_version": parts.host.state.version})

    @routes.post("/webhook")
    def webhook() -> tuple[Response, int]:
        event = protocol.decode_webhook(request.get_json(silent=True))
        if event.action != START_TRAINING:
            return jsonify({"status": "nothing to do", "action": event.action}), 200
        from ml_backend import jobs

        job_id = jobs.request_retrain(parts.queue, f"asked for in project {event.project}", "label-studio")
        return jsonify({"status": "queued", "job": job_id}), 201

    @routes.post("/job_status")
    def job_status() -> tuple[Response, int]:
        body = request.get_json(silent=True)
        asked = str(body.get("job")) if isinstance(body, dict) else ""
        try:
            return jsonify(protocol.encode_job(_job(parts, asked))), 200
        except JobError as error:
            return jsonify({"error": str(error)}), 410

    return routes


def _job(parts: Parts, job_id: str) -> Job:
    from ml_backend.jobs import RETRAIN

    if job_id != _NEWEST:
        return parts.queue.get(job_id)
    found = next((job for job in parts.queue.jobs() if job.kind == RETRAIN), None)
    if found is None:
        raise JobError("retraining", None, "one that was asked for", "Press Start Training.")
    return found
