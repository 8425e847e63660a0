"""Everything the serving programs read from outside, once, at the start."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ml_backend.errors import SettingsError
from ml_backend.remote_folders import split_address
from telemetry.settings import malformed

_PREFIX = "DERMLOOP_ML_"
_SECRET_LENGTH = 16
_List = Annotated[tuple[str, ...], NoDecode]
_Secrets = Annotated[tuple[SecretStr, ...], NoDecode]


class Settings(BaseSettings):
    """Settings of the backend; each has an environment variable `DERMLOOP_ML_<NAME>`.

    Lists are separated by commas. `open_mode` is true where nobody has to log in, which is accepted on loopback only.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True)

    home: Path = Field(Path(".dermloop"), description="folder of the local stack")
    models: Path | None = Field(None, description="folder of bundles; <home>/models by default")
    registry: str | None = Field(None, description="s3:// address of a registry that machines share; replaces models")
    model_cache: Path | None = Field(None, description="folder for its bundles; <home>/model-cache by default")
    image_root: Path | None = Field(None, description="what /data/local-files/?d= counts from; <home> by default")
    upload_root: Path | None = Field(None, description="Label Studio's media folder, where it is on this machine")
    jobs_url: str | None = Field(None, description="file or redis:// address of the queue; <home>/jobs.db by default")
    jobs_lease: float = Field(30.0, gt=0, description="seconds until a silent worker's job goes to another one")
    host: str = Field("127.0.0.1", description="address to listen on; anything but loopback needs a login")
    port: int = Field(9090, ge=0, le=65535, description="port to listen on")
    threads: int | None = Field(None, ge=1, description="processors for the models; all by default")
    label_studio_url: str | None = Field(None, description="where Label Studio answers: uploads, presigned objects")
    label_studio_token: SecretStr | None = Field(None, description="legacy or personal access token")
    basic_auth_user: str | None = Field(None, description="Label Studio's login here")
    basic_auth_password: SecretStr | None = Field(None, description="and its password")
    tokens: _Secrets = Field((), description="bearer tokens as role:token; roles are reader, operator and observer")
    public_url: str | None = Field(None, description="how annotators' browsers reach this service, for overlay links")
    link_secret: SecretStr | None = Field(None, description="signs overlay links; 16 characters or more")
    allowed_hosts: _List = Field((), description="hosts that images may be fetched from by http(s)")
    allowed_buckets: _List = Field((), description="buckets that images may be fetched from by s3://")
    bucket: str | None = Field(None, description="bucket whose results /detect gives; the first allowed by default")
    s3_endpoint: str | None = Field(None, description="address of an S3-compatible store; AWS by default")
    s3_by_label_studio: bool = Field(False, description="let Label Studio presign s3:// instead of own credentials")
    max_bytes: int = Field(50_000_000, ge=1, description="largest picture file accepted")
    max_pixels: int = Field(80_000_000, ge=1, description="largest picture accepted")
    predict_seconds: float = Field(80.0, gt=0, description="time for one /predict; Label Studio waits 100 s")

    @field_validator("registry", "model_cache", mode="before")
    @classmethod
    def _none_for_nothing(cls, value: Any) -> Any:
        return value or None

    @field_validator("allowed_hosts", "allowed_buckets", "tokens", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def models_folder(self) -> Path:
        """Where bundles and the champion pointer lie."""
        return self.models or self.home / "models"

    @property
    def cache_folder(self) -> Path:
        """Where bundles of a shared registry are kept on this machine."""
        return self.model_cache or self.home / "model-cache"

    @property
    def images_folder(self) -> Path:
        """What paths of local files count from."""
        return self.image_root or self.home

    @property
    def jobs_address(self) -> str:
        """Where the queue is."""
        return self.jobs_url or str(self.home / "jobs.db")

    @property
    def results_bucket(self) -> str | None:
        """Bucket whose stored results are given out, if any."""
        return self.bucket or next(iter(self.allowed_buckets), None)

    @property
    def open_mode(self) -> bool:
        """Whether requests need no login."""
        return self.basic_auth_user is None and not self.tokens


def read_settings(**given: Any) -> Settings:
    """The settings of the environment, overruled by what is given.

    Raises SettingsError for a malformed value, half a login, or a service open to others without a login.
    """
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(*malformed(error, _PREFIX)) from None
    return _checked(settings)


def _checked(settings: Settings) -> Settings:
    if (settings.basic_auth_user is None) != (settings.basic_auth_password is None):
        missing = "PASSWORD" if settings.basic_auth_password is None else "USER"
        raise SettingsError(f"DERMLOOP_ML_BASIC_AUTH_{missing}", None, "user and password together", "Set both.")
    if settings.link_secret is not None and len(settings.link_secret.get_secret_value()) < _SECRET_LENGTH:
        expected = f"{_SECRET_LENGTH} characters or more"
        raise SettingsError("DERMLOOP_ML_LINK_SECRET", "a short secret", expected, "Choose a longer one.")
    if settings.registry is not None:
        _require_registry(settings)
    if settings.open_mode and not _is_loopback(settings.host):
        cure = "Set DERMLOOP_ML_BASIC_AUTH_USER and _PASSWORD or DERMLOOP_ML_TOKENS, or bind to 127.0.0.1."
        raise SettingsError("DERMLOOP_ML_HOST", settings.host, "a login for every address but loopback", cure)
    return settings


def _require_registry(settings: Settings) -> None:
    name, address = "DERMLOOP_ML_REGISTRY", settings.registry or ""
    if settings.models is not None:
        raise SettingsError(f"{name} and DERMLOOP_ML_MODELS", "both", "one of them", "Unset the other.")
    split_address(address, name)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
