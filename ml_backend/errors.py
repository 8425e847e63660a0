"""What can go wrong while serving: one root, each message names item, value, expectation and cure."""

from __future__ import annotations

from converters.errors import DesignedError


class ServingError(DesignedError):
    """A request, file or setting that cannot be served; `str()` joins the four parts into one sentence."""


class BundleError(ServingError):
    """A model bundle that is missing, changed since it was written, or made for another taxonomy."""


class UnreadableImageError(ServingError):
    """Bytes that are no picture this service accepts, or one over the declared limits."""


class ProtocolError(ServingError):
    """A request body that does not say what it must."""


class SettingsError(ServingError):
    """A setting that is missing or contradicts another; the program does not start."""


class FetchError(ServingError):
    """An image address that may not be read, or that did not answer."""


class NoModelError(ServingError):
    """No champion has been promoted yet, or its bundle cannot be loaded."""


class JobError(ServingError):
    """A background job that does not exist or is in no state for what was asked."""


class LabelStudioError(ServingError):
    """Label Studio refused a request or did not answer."""


class OutOfTimeError(ServingError):
    """A picture that was left because the request's time was up."""


class MediaTypeError(ServingError):
    """A body of a kind that the route does not read."""


class NotUploadedError(ProtocolError):
    """A multipart body without the picture it should carry, or with too many."""


class StoreError(ServingError):
    """An object store refused a request or did not answer; `value` is its own code."""


class NotFoundError(ServingError):
    """Something asked for by name that is not there."""


class InferenceError(ServingError):
    """A graph that failed on its input."""
