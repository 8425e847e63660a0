"""The door to AWS: clients with the environment's credentials, and every refusal as one sentence with its cure."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dermloop.errors import AwsError, AwsMissingError

_SIGN_IN = "Sign in again (`aws sso login`, or fresh session credentials) and run the same command."
_KEYS = "Check AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
_ALLOW = "Give this login the permission the message names, or use another (AWS_PROFILE); nothing was changed by this."
_PLACE = "Check the name and the region (AWS_REGION)."
_LATER = "Wait a minute and run the same command again."
CURES: Mapping[str, str] = {
    "AccessDenied": _ALLOW,
    "AccessDeniedException": _ALLOW,
    "UnauthorizedOperation": _ALLOW,
    "AuthorizationError": _ALLOW,
    "403": _ALLOW,
    "ExpiredToken": _SIGN_IN,
    "ExpiredTokenException": _SIGN_IN,
    "RequestExpired": _SIGN_IN,
    "TokenRefreshRequired": _SIGN_IN,
    "InvalidClientTokenId": _KEYS,
    "InvalidAccessKeyId": _KEYS,
    "UnrecognizedClientException": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "InvalidToken": _KEYS,
    "NoSuchBucket": _PLACE,
    "PermanentRedirect": _PLACE,
    "ResourceNotFound": _PLACE,
    "Throttling": _LATER,
    "ThrottlingException": _LATER,
    "SlowDown": _LATER,
    "ResourceLimitExceeded": "Ask AWS for a higher quota of this instance type, or name another type.",
}
"""What to do about a code that AWS answers with."""

_MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchBucket", "ResourceNotFoundException", "QueueDoesNotExist"})
_LOCAL: Mapping[str, tuple[str, str]] = {
    "NoCredentialsError": ("credentials", "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."),
    "PartialCredentialsError": ("whole credentials", _KEYS),
    "TokenRetrievalError": ("a login that is still good", _SIGN_IN),
    "SSOTokenLoadError": ("a login that is still good", _SIGN_IN),
    "UnauthorizedSSOTokenError": ("a login that is still good", _SIGN_IN),
    "ProfileNotFound": ("a profile that exists", "Correct AWS_PROFILE."),
    "NoRegionError": ("a region", "Set AWS_REGION, or name it with --region."),
    "ParamValidationError": ("values that AWS accepts", "Correct the value that is named."),
}


@dataclass(frozen=True)
class Aws:
    """Clients of one region, each made when first asked for."""

    region: str | None = None

    def client(self, service: str) -> Any:
        """The boto3 client of a service; raises AwsError where neither credentials nor a region are configured."""
        return _client(service, self.region)

    @property
    def region_name(self) -> str:
        """The region in use."""
        return str(self.client("sts").meta.region_name)

    def account(self) -> str:
        """Number of the account whose credentials are in use."""
        with told("account"):
            return str(self.client("sts").get_caller_identity()["Account"])


_OPEN: dict[tuple[str, str | None], Any] = {}
_TURN = threading.Lock()


def _client(service: str, region: str | None) -> Any:
    with _TURN, told(f"client for {service}"):
        if (service, region) not in _OPEN:
            from botocore.config import Config

            settings = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard"})
            _OPEN[service, region] = _session().client(service, region_name=region, config=settings)
        return _OPEN[service, region]


@functools.cache
def _session() -> Any:
    """One for all clients: it reads credentials once, and the descriptions of the services."""
    import boto3

    return boto3.session.Session()


def forget_clients() -> None:
    """Closes and forgets every client: the next is made with what the environment then says."""
    with _TURN:
        while _OPEN:
            _OPEN.popitem()[1].close()
        _session.cache_clear()


@contextmanager
def told(item: str) -> Iterator[None]:
    """Turns what botocore raises into one AwsError that names the item, AWS's own words and the cure."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _refused(item, error.response.get("Error", {}), error.operation_name) from error
    except BotoCoreError as error:
        raise _failed(item, error) from error


def _refused(item: str, answer: Mapping[str, Any], operation: str) -> AwsError:
    code, words = str(answer.get("Code") or "no code"), " ".join(str(answer.get("Message") or "").split())
    kind = AwsMissingError if code in _MISSING else AwsError
    cure = CURES.get(code, "Correct what the message names and run the same command again.")
    said = f"{code} ({words.rstrip('.')})" if words else code
    return kind(item, said, f"AWS to accept {operation}", cure)


def _failed(item: str, error: Exception) -> AwsError:
    name = type(error).__name__
    fallback = ("an answer", "Check the network, the region and AWS_ENDPOINT_URL, then run the same command again.")
    expected, cure = _LOCAL.get(name, fallback)
    return AwsError(item, f"{name} ({' '.join(str(error).split()).rstrip('.')})", expected, cure)
