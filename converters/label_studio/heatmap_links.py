"""Signed links to heat-maps: the backend honours them, and whoever makes tasks may put them in.

A link is good for one picture, and for nobody who was not given it. It names the picture's address and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlencode

PATH = "/v1/overlay"


def link(address: str, service: str, secret: str | None) -> str:
    """Where a browser finds the heat-map of the picture at an address: a page of `service`, signed with its secret.

    A service without logins needs no secret.
    """
    asked = {"image": address} if secret is None else {"image": address, "sign": signature(address, secret)}
    return f"{service.rstrip('/')}{PATH}?{urlencode(asked)}"


def signature(address: str, secret: str) -> str:
    """The proof that the holder of the secret gave out a link to a picture: HMAC-SHA-256, in hexadecimal."""
    return hmac.new(secret.encode(), address.encode(), hashlib.sha256).hexdigest()
