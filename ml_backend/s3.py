"""The one door to S3: objects read within limits, with the credentials of the environment."""

from __future__ import annotations

import threading
from typing import Any

from ml_backend.errors import FetchError


class ObjectStore:
    """S3 or a store that speaks its protocol; connects on first use."""

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint
        self._local = threading.local()

    @property
    def client(self) -> Any:
        """The boto3 client of this thread."""
        import boto3
        from botocore.config import Config

        if not hasattr(self._local, "client"):
            settings = Config(connect_timeout=3, read_timeout=15, retries={"max_attempts": 2})
            self._local.client = boto3.session.Session().client("s3", endpoint_url=self._endpoint, config=settings)
        return self._local.client

    def read(self, bucket: str, key: str, max_bytes: int) -> bytes:
        """The bytes of an object; raises FetchError where it is missing, too large or refused."""
        from botocore.exceptions import BotoCoreError, ClientError

        item = f"s3://{bucket}/{key}"
        try:
            found = self.client.get_object(Bucket=bucket, Key=key)
            content: bytes = found["Body"].read(max_bytes + 1)
        except (ClientError, BotoCoreError) as error:
            raise FetchError(item, _reason(error), "a readable object", "Check key and credentials.") from error
        if len(content) > max_bytes:
            raise FetchError(item, "more bytes", f"at most {max_bytes}", "Scale the image down.")
        return content


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code") or type(error).__name__)
