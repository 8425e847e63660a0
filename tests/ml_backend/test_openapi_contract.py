"""What `/openapi.json` promises holds for generated requests: documented statuses and forms, and no server error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from builders_serving import bundle
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ml_backend import openapi
from ml_backend.app import create_app
from ml_backend.settings import read_settings

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    home = tmp_path_factory.mktemp("home")
    bundle(home)
    made = create_app(read_settings(home=home))
    made.extensions["dermloop"].host.current()
    yield made
    made.extensions["dermloop"].close()


@pytest.mark.parametrize("path", openapi.document()["paths"])
def test_generated_requests_meet_the_documented_answers(app: Flask, path: str) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    for operation in schema[path].values():

        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            case.validate_response(case.call(headers={"Host": "localhost"}), checks=CHECKS)

        ask()
