"""The function behind API Gateway: its bearer token comes from a secret, read once when the function starts."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from typing import Any

from ml_backend import lambda_handlers
from ml_backend.errors import SettingsError

SECRET = "DERMLOOP_TOKEN_SECRET"
_TOKENS = "DERMLOOP_ML_TOKENS"


def on_request(event: Mapping[str, Any], context: object = None) -> dict[str, Any]:
    """The application's answer to a request through API Gateway; raises SettingsError where the secret is unusable."""
    adopt_token()
    return lambda_handlers.on_request(event, context)


@functools.cache
def adopt_token() -> None:
    """Puts the secret's token into the environment before the settings are read; without a secret nothing happens."""
    name = os.environ.get(SECRET)
    if not name:
        return
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = json.loads(boto3.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])
        os.environ[_TOKENS] = f"{found['role']}:{found['token']}"
    except (BotoCoreError, ClientError, KeyError, ValueError) as error:
        cure = "Give the function secretsmanager:GetSecretValue on a secret with role and token."
        raise SettingsError(SECRET, type(error).__name__, "a readable secret", cure) from None
