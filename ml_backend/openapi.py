"""The OpenAPI description of the REST routes, as `/openapi.json` gives it out."""

from __future__ import annotations

from typing import Any

from ml_backend.answers import DISCLAIMER

_Schema = dict[str, Any]


def document() -> _Schema:
    """The description, in OpenAPI 3.0.3."""
    return {
        "openapi": "3.0.3",
        "info": {"title": "dermloop", "version": "1", "description": DISCLAIMER},
        "security": [{"token": []}, {"login": []}, {}],
        "paths": {
            "/predict": {"post": _operation("Read one picture", _upload(many=False), "Upload")},
            "/v1/analyze": {
                "post": {**_operation("Read pictures", _upload(many=True), "Analysis"), "parameters": [_HEATMAP]}
            },
            "/v1/overlay": {"get": {**_picture("Where the classifier looked"), "parameters": [_IMAGE]}},
            "/v1/models": {"get": _operation("The serving bundle and all versions", None, "Models")},
            "/detect/{key}": {
                "get": {**_operation("The stored result of an object", None, "Stored"), "parameters": [_KEY]}
            },
            "/healthz": {"get": _operation("Whether the process lives", None, "Health")},
            "/readyz": {"get": _operation("Whether a champion serves", None, "Readiness")},
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "login": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _operation(summary: str, body: _Schema | None, schema: str) -> _Schema:
    failures = {"400": "malformed request", "401": "no login", "403": "not allowed", "404": "no such thing",
                "405": "other method", "413": "too large", "415": "other kind of body", "422": "unreadable picture",
                "503": "no champion yet"}  # fmt: skip
    responses = {
        status: {"description": text, "content": {"application/json": {"schema": _ref("Error")}}}
        for status, text in failures.items()
    }
    responses["200"] = {"description": summary, "content": {"application/json": {"schema": _ref(schema)}}}
    operation: _Schema = {"summary": summary, "responses": responses}
    return operation if body is None else {**operation, "requestBody": body}


def _picture(summary: str) -> _Schema:
    operation = _operation(summary, None, "Error")
    operation["responses"]["200"]["content"] = {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}
    return operation


def _upload(many: bool) -> _Schema:
    file: _Schema = {"type": "string", "format": "binary"}
    field = {"type": "array", "items": file, "minItems": 1, "maxItems": 64} if many else file
    schema = {"type": "object", "required": ["image"], "properties": {"image": field}}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(item: _Schema) -> _Schema:
    return {"type": "array", "items": item}


def _object(required: _Schema, optional: _Schema | None = None) -> _Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


_TEXT: _Schema = {"type": "string"}
_MAYBE: _Schema = {"type": "string", "nullable": True}
_SHARE: _Schema = {"type": "number", "minimum": 0, "maximum": 1.000001}
_SHARES: _Schema = {"type": "object", "additionalProperties": _SHARE}
_CLASS = _object({"class": _TEXT, "label": _TEXT})
_BOX: _Schema = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
_HEATMAP: _Schema = {"name": "heatmap", "in": "query", "schema": {"type": "boolean"}, "description": "add a heat-map"}
_IMAGE: _Schema = {"name": "image", "in": "query", "required": True, "schema": _TEXT, "description": "its address"}
_KEY: _Schema = {"name": "key", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_SCHEMAS: _Schema = {
    "Error": _object({"error": _TEXT, "request_id": _TEXT}),
    "Lesion": _object(
        {"box": _BOX, "score": {**_SHARE, "nullable": True}, "diagnosis": _MAYBE, "severity": _MAYBE},
        {
            "outline": {"type": "array", "nullable": True, "items": {"type": "array", "items": {"type": "number"}}},
            "malignant": _SHARE,
            "abstains": {"type": "boolean"},
            "differential": _list(_CLASS),
            "probabilities": _SHARES,
            "labels": {"type": "object", "additionalProperties": _TEXT},
            "severities": _SHARES,
        },
    ),
    "Upload": _object(
        {
            "predictions": _list(_object({"class": _TEXT, "confidence": _SHARE, "label": _TEXT})),
            "top_prediction": _MAYBE,
            "severity": _MAYBE,
            "lesions": _list(_ref("Lesion")),
            "recommendation": _TEXT,
            "model_version": _TEXT,
            "disclaimer": _TEXT,
        }
    ),
    "Analysis": _object({"model_version": _TEXT, "disclaimer": _TEXT, "results": _list(_ref("Result"))}),
    "Result": _object(
        {"item": _TEXT},
        {
            "error": _TEXT,
            "width": {"type": "integer"},
            "height": {"type": "integer"},
            "uncertainty": _SHARE,
            "recommendation": _TEXT,
            "lesions": _list(_ref("Lesion")),
            "heatmap": _TEXT,
        },
    ),
    "Models": _object({"serving": {"type": "object", "nullable": True}, "versions": _list(_TEXT)}),
    "Stored": _object({"key": _TEXT, "model_version": _TEXT, "disclaimer": _TEXT}, {"recommendation": _TEXT}),
    "Health": _object({"status": _TEXT}),
    "Readiness": _object({"ready": {"type": "boolean"}, "model_version": _MAYBE}),
}
