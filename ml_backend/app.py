"""The web application: routes, who may call them, and how errors look, in one place."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, jsonify, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException

from converters.label_studio import heatmap_links
from ml_backend import access, api, composition, links, rest
from ml_backend.access import Credentials, Role
from ml_backend.composition import Parts
from ml_backend.errors import (
    BundleError,
    FetchError,
    JobError,
    LabelStudioError,
    MediaTypeError,
    NoModelError,
    NotFoundError,
    OutOfTimeError,
    ProtocolError,
    ServingError,
    StoreError,
    UnreadableImageError,
)
from ml_backend.settings import Settings
from telemetry import request_id, web

_log = logging.getLogger(__name__)
_HALF = b"\\ud"
_STATUS: dict[type[ServingError], HTTPStatus] = {
    ProtocolError: HTTPStatus.BAD_REQUEST,
    MediaTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    UnreadableImageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    FetchError: HTTPStatus.UNPROCESSABLE_ENTITY,
    JobError: HTTPStatus.CONFLICT,
    NoModelError: HTTPStatus.SERVICE_UNAVAILABLE,
    BundleError: HTTPStatus.SERVICE_UNAVAILABLE,
    OutOfTimeError: HTTPStatus.SERVICE_UNAVAILABLE,
    LabelStudioError: HTTPStatus.BAD_GATEWAY,
    StoreError: HTTPStatus.BAD_GATEWAY,
    NotFoundError: HTTPStatus.NOT_FOUND,
}


def create_app(settings: Settings, parts: Parts | None = None) -> Flask:
    """The application for these settings; models load in the background while it already answers.

    Raises SettingsError for malformed tokens.
    """
    app = Flask(__name__, static_folder=None)
    app.json = _Json(app)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_bytes + 65_536
    known = access.tokens(settings)
    own = parts or composition.build(settings)
    app.extensions["dermloop"] = own
    app.register_blueprint(api.blueprint(own))
    app.register_blueprint(rest.blueprint(own))
    web.observe(app, own.metrics.meter)
    app.before_request(lambda: _admit(settings, known))
    app.after_request(_finish)
    app.register_error_handler(ServingError, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)
    return app


class _Json(DefaultJSONProvider):
    """Takes a body that is nested without end, or that has text no file or store can hold, for malformed."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        try:
            found = super().loads(s, **kwargs)
            if _HALF in (s if isinstance(s, bytes) else s.encode(errors="surrogatepass")).lower():
                json.dumps(found, ensure_ascii=False).encode()
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        return found


def _admit(settings: Settings, known: dict[Role, tuple[str, ...]]) -> Response | None:
    if settings.open_mode:
        if access.is_local_name(request.host):
            return None
        return _problem(HTTPStatus.FORBIDDEN, "Without a login this service answers to its own machine's names only.")
    role = access.role_of(_shown(), settings, known)
    if access.allows(role, request.path) or _has_link(settings):
        return None
    if role is not None:
        return _problem(HTTPStatus.FORBIDDEN, f"The role {role.value} may not call this.")
    response = _problem(HTTPStatus.UNAUTHORIZED, "A login is needed.")
    response.headers["WWW-Authenticate"] = 'Basic realm="dermloop"' if settings.basic_auth_user else "Bearer"
    return response


def _has_link(settings: Settings) -> bool:
    address, shown = request.args.get("image", ""), request.args.get("sign", "")
    return request.path == heatmap_links.PATH and links.is_signed(address, shown, settings)


def _shown() -> Credentials:
    given = request.authorization
    if given is None:
        return Credentials()
    if given.type == "bearer":
        return Credentials(token=given.token or "")
    return Credentials(user=given.username or "", password=given.password or "")


def _finish(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def status_of(error: ServingError) -> HTTPStatus:
    """The status that an error is answered with, by its kind."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)


def _refused(error: ServingError) -> Response:
    return _problem(status_of(error), str(error))


def _http_error(error: HTTPException) -> Response:
    return _problem(HTTPStatus(error.code or 500), error.description or error.name)


def _unexpected(error: Exception) -> Response:
    _log.exception("unexpected %s at %s %s", type(error).__name__, request.method, request.url_rule)
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The request failed; the service's log says why.")


def _problem(status: HTTPStatus, reason: str) -> Response:
    response = jsonify({"error": reason, "request_id": request_id.current()})
    response.status_code = status
    return response
