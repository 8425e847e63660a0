"""The web application: routes, who may call them, and how errors look, in one place."""

from __future__ import annotations

import hmac
import logging
from http import HTTPStatus

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from ml_backend import api, composition
from ml_backend.composition import Parts
from ml_backend.errors import (
    BundleError,
    FetchError,
    JobError,
    LabelStudioError,
    NoModelError,
    OutOfTimeError,
    ProtocolError,
    ServingError,
    UnreadableImageError,
)
from ml_backend.settings import Settings

_log = logging.getLogger(__name__)
_OPEN_PATHS = frozenset({"/health", "/healthz", "/readyz"})
_STATUS: dict[type[ServingError], HTTPStatus] = {
    ProtocolError: HTTPStatus.BAD_REQUEST,
    UnreadableImageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    FetchError: HTTPStatus.UNPROCESSABLE_ENTITY,
    JobError: HTTPStatus.CONFLICT,
    NoModelError: HTTPStatus.SERVICE_UNAVAILABLE,
    BundleError: HTTPStatus.SERVICE_UNAVAILABLE,
    OutOfTimeError: HTTPStatus.SERVICE_UNAVAILABLE,
    LabelStudioError: HTTPStatus.BAD_GATEWAY,
}


def create_app(settings: Settings, parts: Parts | None = None) -> Flask:
    """The application for these settings; models load in the background while it already answers."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_bytes + 1_000_000
    own = parts or composition.build(settings)
    app.extensions["dermloop"] = own
    app.register_blueprint(api.blueprint(own))
    app.before_request(lambda: _login(settings))
    app.register_error_handler(ServingError, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)
    return app


def _login(settings: Settings) -> Response | None:
    if settings.open_mode or request.path in _OPEN_PATHS or _is_known(settings):
        return None
    response = _problem(HTTPStatus.UNAUTHORIZED, "A login is needed.")
    response.headers["WWW-Authenticate"] = 'Basic realm="dermloop"'
    return response


def _is_known(settings: Settings) -> bool:
    given = request.authorization
    if given is None or given.type != "basic" or settings.basic_auth_password is None:
        return False
    user = hmac.compare_digest((given.username or "").encode(), (settings.basic_auth_user or "").encode())
    expected = settings.basic_auth_password.get_secret_value().encode()
    return hmac.compare_digest((given.password or "").encode(), expected) and user


def _refused(error: ServingError) -> Response:
    status = _STATUS.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)
    return _problem(status, str(error))


def _http_error(error: HTTPException) -> Response:
    return _problem(HTTPStatus(error.code or 500), error.description or error.name)


def _unexpected(error: Exception) -> Response:
    _log.exception("unexpected %s at %s %s", type(error).__name__, request.method, request.path)
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The request failed; the service's log says why.")


def _problem(status: HTTPStatus, reason: str) -> Response:
    response = jsonify({"error": reason})
    response.status_code = status
    return response
