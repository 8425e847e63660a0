"""The review service over HTTP: health, webhooks, status, sync."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from review_workflow import settings as configuration
from review_workflow import webhooks
from review_workflow.background import Background
from review_workflow.errors import (
    AuditError,
    BusyError,
    ConflictError,
    LabelStudioError,
    ReviewError,
    UnknownImageError,
    UnknownPersonError,
    WebhookError,
)
from review_workflow.project_setup import SECRET_HEADER
from review_workflow.service import ReviewService, open_service
from review_workflow.settings import ReviewSettings

_STATUS: dict[type[ReviewError], HTTPStatus] = {
    UnknownImageError: HTTPStatus.NOT_FOUND,
    UnknownPersonError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    BusyError: HTTPStatus.SERVICE_UNAVAILABLE,
    LabelStudioError: HTTPStatus.BAD_GATEWAY,
    AuditError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_BODY_LIMIT = 64 * 1024 * 1024


def create_app(settings: ReviewSettings, service: ReviewService | None = None) -> Flask:
    """The WSGI application; it starts the background thread. Raises SettingsError where a secret is missing."""
    configuration.require(settings, "label_studio_token", "webhook_secret")
    service = service or open_service(settings)
    background = Background(service, settings.sync_seconds)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = _BODY_LIMIT
    app.extensions["review"] = service
    app.extensions["background"] = background
    _add_error_handlers(app)
    _add_routes(app, service, background, settings)
    background.start()
    return app


def _add_routes(app: Flask, service: ReviewService, background: Background, settings: ReviewSettings) -> None:
    secret = settings.webhook_secret.get_secret_value()

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="UP", sync=background.last_error or "in step")

    @app.post("/webhook")
    def webhook() -> Response:
        webhooks.check_secret(request.headers.get(SECRET_HEADER), secret)
        service.receive(webhooks.parse(request.get_data()))
        background.nudge()
        return jsonify(status="noted")

    @app.get("/api/status")
    def status() -> Response:
        webhooks.check_secret(request.headers.get(SECRET_HEADER), secret)
        return jsonify(asdict(service.status()))

    @app.post("/api/sync")
    def sync() -> Response:
        webhooks.check_secret(request.headers.get(SECRET_HEADER), secret)
        return jsonify(asdict(service.sync(full=request.args.get("full") == "1")))


def _add_error_handlers(app: Flask) -> None:
    @app.errorhandler(WebhookError)
    def refused(error: WebhookError) -> tuple[Response, int]:
        status = HTTPStatus.UNAUTHORIZED if "secret" in str(error.value) else HTTPStatus.BAD_REQUEST
        return jsonify(error=str(error)), status

    @app.errorhandler(ReviewError)
    def failed(error: ReviewError) -> tuple[Response, int]:
        return jsonify(error=str(error)), _STATUS.get(type(error), HTTPStatus.BAD_REQUEST)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=f"{error.name}: {error.description}"), error.code or 500

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> tuple[Response, int]:
        app.logger.exception("unexpected error", exc_info=error)
        return jsonify(error="Something went wrong here; it is in the log of the review service."), 500
