"""What can go wrong at the front door: one root, each message names item, value, expectation and cure."""

from __future__ import annotations

from converters.errors import DesignedError


class DermloopError(DesignedError):
    """Something the command cannot do; its value is mostly words of ours, and stands in the sentence as it is."""

    def __init__(self, item: str, value: object, expected: str, cure: str) -> None:
        super().__init__(item, value, expected, cure)
        self.args = (f"{item}: {value}; expected {expected}. {cure}",)


class PortError(DermloopError):
    """A port that another program holds."""


class InstallError(DermloopError):
    """A program that is not there and could not be installed."""


class StartError(DermloopError):
    """A program that did not start, or died and stayed dead."""


class RunningError(DermloopError):
    """A home folder that another `dermloop up` is using, or none that should be."""


class SecretsError(DermloopError):
    """A secrets file that cannot be read."""


class AccountError(DermloopError):
    """A person that Label Studio does not let in."""


class ProvisionError(DermloopError):
    """A server that cannot be set up: a setting, a person or a program that is missing."""


class BackupError(DermloopError):
    """An archive that cannot be written, read or given back."""


class BulkError(DermloopError):
    """A run over many pictures that cannot be planned or worked off."""


class IngestError(DermloopError):
    """A folder or table that no image can be taken from."""


class JobFailedError(DermloopError):
    """A job's process ended with an error."""


class LoopError(DermloopError):
    """A stage of the loop that cannot go on."""


class AwsError(DermloopError):
    """AWS refused a request or did not answer."""


class AwsMissingError(AwsError):
    """Something asked of AWS by name that is not there."""


class DeployError(DermloopError):
    """A stack that could not be brought to where it should be; what was there before is still there."""


class BackfillError(DermloopError):
    """A backfill whose shards or answers do not fit together."""


class LabellingError(DermloopError):
    """A labelling job that cannot be created or collected."""


class RemoteJobError(DermloopError):
    """A training job on SageMaker that cannot be submitted, or that did not end well."""
