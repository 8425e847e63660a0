"""What can go wrong while training: one root, each message names item, value, expectation and cure."""

from __future__ import annotations

from converters.errors import DesignedError


class TrainingError(DesignedError):
    """A job that cannot go on; `str()` joins the four parts into one sentence."""


class ConfigError(TrainingError):
    """A configuration key or value that nothing here understands."""


class DataError(TrainingError):
    """A dataset version that a model cannot be trained or measured on."""


class ParityError(TrainingError):
    """An exported graph that does not answer as the trained model does."""


class EvaluationError(TrainingError):
    """A report that is missing, malformed, or measured on something else."""


class RegistryError(TrainingError):
    """A promotion or rollback that the registry refuses."""


class RunError(TrainingError):
    """A run folder that cannot be resumed."""


class MissingExtraError(TrainingError):
    """A library of the `train` extra that is not installed."""


class TrackingError(TrainingError):
    """A place for a run's figures that cannot be reached or written."""


class ToolError(TrainingError):
    """A program or package from outside that is missing or fails."""
