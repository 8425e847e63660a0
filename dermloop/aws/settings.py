"""What the commands for AWS read from the environment, once; credentials and region are boto3's own."""

from __future__ import annotations

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from dermloop.errors import AwsError
from telemetry.settings import malformed

_PREFIX = "DERMLOOP_AWS_"


class AwsSettings(BaseSettings):
    """Settings of the commands for AWS; each has an environment variable `DERMLOOP_AWS_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True)

    stack: str = Field("dermloop", pattern=r"^[a-z][a-z0-9-]{0,30}$", description="name of the stack")
    poll_seconds: float = Field(5.0, gt=0, description="pause between two looks at something that goes on")
    training_instance: str = Field("ml.g5.xlarge", description="instance type of training and tuning jobs")
    training_volume_gb: int = Field(50, ge=1, description="disk of a training job")
    training_hours: float = Field(12.0, gt=0, description="longest run of a training job")
    spot: bool = Field(True, description="train on spot capacity, with checkpoints")
    spot_wait_hours: float = Field(24.0, gt=0, description="longest wait for spot capacity, the run included")
    tuning_parallel: int = Field(2, ge=1, description="trials of a tuning job at the same time")
    backfill_instance: str = Field("ml.m5.xlarge", description="instance type of backfills")
    backfill_instances: int = Field(1, ge=1, description="instances of a backfill")
    backfill_parallel: int = Field(4, ge=1, description="requests at the same time to each instance of a backfill")


def read_settings() -> AwsSettings:
    """The settings of the environment; raises AwsError naming the first malformed one."""
    try:
        return AwsSettings()
    except ValidationError as error:
        raise AwsError(*malformed(error, _PREFIX)) from None
