"""The review service over HTTP: health, webhooks, status, sync."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import TypeAlias

from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from review_workflow import settings as configuration
from review_workflow import webhooks
from review_workflow.background import Background
from review_workflow.dashboard import add_dashboard
from review_workflow.dashboard.login import Doorkeeper, LabelStudioDoorkeeper
from review_workflow.door import note_refusal
from review_workflow.errors import (
    AuditError,
    BusyError,
    ConflictError,
    LabelStudioError,
    ReviewError,
    SecretError,
    StoreError,
    UnknownImageError,
    UnknownPersonError,
    WebhookError,
)
from review_workflow.metrics import ReviewMetrics
from review_workflow.project_setup import SECRET_HEADER
from review_workflow.refusals import RefusalBook, Refused
from review_workflow.service import ReviewService, open_service
from review_workflow.settings import ReviewSettings
from telemetry import request_id, web
from telemetry.metrics import CONTENT_TYPE

_STATUS: dict[type[ReviewError], HTTPStatus] = {
    UnknownImageError: HTTPStatus.NOT_FOUND,
    UnknownPersonError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    BusyError: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    LabelStudioError: HTTPStatus.BAD_GATEWAY,
    AuditError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_Answer: TypeAlias = tuple[Response | str, HTTPStatus]
_LOOPBACK = ("127.0.0.1", "::1")
_BODY_LIMIT = 64 * 1024 * 1024


def create_app(
    settings: ReviewSettings, service: ReviewService | None = None, doorkeeper: Doorkeeper | None = None
) -> Flask:
    """The WSGI application; it starts the background thread. Raises SettingsError where a secret is missing.

    The dashboard is there when `session_secret` is set.
    """
    configuration.require(settings, "label_studio_token", "webhook_secret")
    service = service or open_service(settings)
    background = Background(service, settings.sync_seconds)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _BODY_LIMIT
    app.extensions["review"] = service
    app.extensions["background"] = background
    metrics = ReviewMetrics(service, bool(settings.public_url))
    web.observe(app, metrics.meter)
    _add_error_handlers(app, service.refusals)
    _add_routes(app, service, background, settings, metrics)
    _add_metrics(app, background, settings, metrics)
    if session_secret := settings.session_secret.get_secret_value():
        keeper = doorkeeper or LabelStudioDoorkeeper(settings.label_studio_url)
        add_dashboard(app, service, keeper, settings.home, settings.images, session_secret)
    background.start()
    return app


def _add_routes(
    app: Flask, service: ReviewService, background: Background, settings: ReviewSettings, metrics: ReviewMetrics
) -> None:
    secret = settings.webhook_secret.get_secret_value()

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="UP", sync=background.last_error or "in step")

    @app.post("/webhook")
    def webhook() -> Response:
        webhooks.check_secret(request.headers.get(SECRET_HEADER), secret)
        hint = webhooks.parse(request.get_data())
        metrics.received(hint.action)
        service.receive(hint)
        background.nudge(request_id.current())
        return jsonify(status="noted")

    @app.get("/api/status")
    def status() -> Response:
        webhooks.check_secret(request.headers.get(SECRET_HEADER), secret)
        return jsonify(asdict(service.status()))

    @app.post("/api/sync")
    def sync() -> Response:
        webhooks.check_secret(request.headers.get(SECRET_HEADER), secret)
        return jsonify(asdict(service.sync(full=request.args.get("full") == "1")))


def _add_metrics(app: Flask, background: Background, settings: ReviewSettings, metrics: ReviewMetrics) -> None:
    token = settings.metrics_token.get_secret_value()

    @app.get("/metrics")
    def page() -> Response:
        given = request.authorization
        is_local = request.remote_addr in _LOOPBACK and not request.headers.get("X-Forwarded-For")
        webhooks.check_bearer(given.token if given is not None else None, token, is_local)
        return Response(metrics.page(bool(background.last_error)), content_type=CONTENT_TYPE)


def _add_error_handlers(app: Flask, refusals: RefusalBook) -> None:
    @app.errorhandler(SecretError)
    def stranger(error: SecretError) -> _Answer:
        note_refusal(refusals, Refused.SECRET)
        return _failed(HTTPStatus.UNAUTHORIZED, str(error))

    @app.errorhandler(WebhookError)
    def malformed(error: WebhookError) -> _Answer:
        note_refusal(refusals, Refused.MALFORMED)
        return _failed(HTTPStatus.BAD_REQUEST, str(error))

    @app.errorhandler(ReviewError)
    def failed(error: ReviewError) -> _Answer:
        return _failed(_STATUS.get(type(error), HTTPStatus.BAD_REQUEST), str(error))

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> _Answer:
        if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            note_refusal(refusals, Refused.MALFORMED)
        return _failed(HTTPStatus(error.code or 500), error.description or error.name)

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> _Answer:
        app.logger.exception("unexpected error", exc_info=error)
        sentence = "Something went wrong here; it is in the log of the review service."
        return _failed(HTTPStatus.INTERNAL_SERVER_ERROR, sentence)


def _failed(status: HTTPStatus, sentence: str) -> _Answer:
    """A page for a person's browser, JSON for everybody else."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return render_template("error.html", title=status.phrase, message=sentence, me=None), status
    return jsonify(error=sentence, request_id=request_id.current()), status
