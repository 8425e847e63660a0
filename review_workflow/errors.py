"""What can go wrong in review: one root, each message names item, value, expectation and cure."""

from __future__ import annotations

from converters.errors import DesignedError


class ReviewError(DesignedError):
    """Something the review cannot do; the four parts are kept apart so that a page or a report can tabulate them."""


class TransitionError(ReviewError):
    """An event that the declared transition table does not allow in this state, or a table that contradicts itself."""


class PolicyError(ReviewError):
    """A review policy that cannot be read or contradicts itself."""


class SettingsError(ReviewError):
    """A missing or malformed setting of the review service."""


class UnknownImageError(ReviewError):
    """An image that was never registered."""


class UnknownPersonError(ReviewError):
    """A person that the review does not know, or one without a usable role."""


class ConflictError(ReviewError):
    """Two changes of one review at the same instant; this one came second and changed nothing."""


class AuditError(ReviewError):
    """An audit log that was altered, shortened or reordered."""


class LabelStudioError(ReviewError):
    """Label Studio refused, is not there, or answered something unexpected."""


class WebhookError(ReviewError):
    """A webhook that is not from our Label Studio or cannot be read."""


class SecretError(WebhookError):
    """Somebody who does not show the secret that a route asks for."""


class StoreError(ReviewError):
    """A database that is locked, full or away; nothing of the transaction was kept."""


class BusyError(ReviewError):
    """Another process holds the work that was asked for."""
