"""Which links to heat-maps this service gives out, and which it honours."""

from __future__ import annotations

import hmac

from converters.label_studio import heatmap_links
from ml_backend.settings import Settings


def heatmap_link(address: str, settings: Settings) -> str | None:
    """Where an annotator's browser finds the heat-map of a picture, or None where links are not set up.

    Needs `public_url`, and `link_secret` unless the service is open.
    """
    secret = _secret(settings)
    if settings.public_url is None or (secret is None and not settings.open_mode):
        return None
    return heatmap_links.link(address, settings.public_url, secret)


def is_signed(address: str, shown: str, settings: Settings) -> bool:
    """Whether a link is one that this service, or who shares its secret, gave out."""
    secret = _secret(settings)
    if secret is None:
        return False
    return hmac.compare_digest(shown.encode(), heatmap_links.signature(address, secret).encode())


def _secret(settings: Settings) -> str | None:
    return settings.link_secret.get_secret_value() if settings.link_secret is not None else None
