"""Links to heat-maps that may be put into a task: good for one picture, and for nobody who was not given one."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlencode

from ml_backend.settings import Settings

PATH = "/v1/overlay"


def heatmap_link(address: str, settings: Settings) -> str | None:
    """Where an annotator's browser finds the heat-map of a picture, or None where links are not set up.

    Needs `public_url`, and `link_secret` unless the service is open.
    """
    if settings.public_url is None or (settings.link_secret is None and not settings.open_mode):
        return None
    asked = {"image": address, "sign": sign(address, settings)} if settings.link_secret else {"image": address}
    return f"{settings.public_url.rstrip('/')}{PATH}?{urlencode(asked)}"


def sign(address: str, settings: Settings) -> str:
    """The proof that this service gave out a link to a picture; empty without a secret."""
    if settings.link_secret is None:
        return ""
    key = settings.link_secret.get_secret_value().encode()
    return hmac.new(key, address.encode(), hashlib.sha256).hexdigest()


def is_signed(address: str, shown: str, settings: Settings) -> bool:
    """Whether a link is one that this service gave out."""
    expected = sign(address, settings)
    return bool(expected) and hmac.compare_digest(shown.encode(), expected.encode())
