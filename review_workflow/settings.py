"""Configuration of the review service, read once from the environment (`DERMLOOP_REVIEW_…`)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from converters.label_studio import heatmap_links
from review_workflow.errors import SettingsError
from telemetry.settings import malformed

PREFIX = "DERMLOOP_REVIEW_"


class ReviewSettings(BaseSettings):
    """Everything the review service has to know; secrets never appear in its representation.

    `home` holds `review.db` and `images/` unless `database_url` and `image_root` name other places. `public_url` is
    where Label Studio reaches this service; without it there are no webhooks, and the timer alone keeps up.
    `metrics_token` is the bearer token for `/metrics`; without it only this machine is told.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    home: Path = Field(Path(".dermloop"), description="folder of the local stack")
    database_url: str = Field("", description="SQLAlchemy URL; a SQLite file in the home folder by default")
    label_studio_url: str = Field("http://127.0.0.1:8080", description="where Label Studio answers")
    label_studio_token: SecretStr = Field(SecretStr(""), description="token of an account that may make projects")
    webhook_secret: SecretStr = Field(SecretStr(""), description="what Label Studio's webhooks show to be believed")
    session_secret: SecretStr = Field(SecretStr(""), description="signs the dashboard's logins; no dashboard without")
    public_url: str = Field("", description="where Label Studio reaches this service; no webhooks without")
    policy: Path | None = Field(None, description="policy file; <home>/policy.toml where there is one")
    taxonomy: Path | None = Field(None, description="class list; the shipped seven by default")
    image_root: Path | None = Field(None, description="folder of the stored images; <home>/images by default")
    ml_backend_url: str = Field("", description="ML backend that `review setup` connects the projects to")
    ml_backend_user: str = Field("", description="its login")
    ml_backend_password: SecretStr = Field(SecretStr(""), description="its password")
    heatmap_url: str = Field("", description="how readers' browsers reach the ML backend; no heat-maps without")
    link_secret: SecretStr = Field(SecretStr(""), description="the ML backend's DERMLOOP_ML_LINK_SECRET")
    sync_seconds: float = Field(2.0, description="pause between two passes over what changed")
    metrics_token: SecretStr = Field(SecretStr(""), description="bearer token for /metrics; this machine only without")

    @property
    def policy_file(self) -> Path | None:
        """The named policy file, else `<home>/policy.toml` where there is one; None for the default policy."""
        own = self.home / "policy.toml"
        return self.policy or (own if own.is_file() else None)

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the review database."""
        return self.database_url or f"sqlite:///{(self.home / 'review.db').absolute()}"

    @property
    def images(self) -> Path:
        """Folder of the stored images."""
        return (self.image_root or self.home / "images").absolute()

    def heatmap_link(self, address: str) -> str | None:
        """Where a reader's browser finds the heat-map of the picture at an address, or None where none are set up."""
        secret = self.link_secret.get_secret_value()
        if not self.heatmap_url or not secret:
            return None
        return heatmap_links.link(address, self.heatmap_url, secret)


def read(**overrides: object) -> ReviewSettings:
    """The settings of the environment with overrides; raises SettingsError naming the malformed variable."""
    try:
        return ReviewSettings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(*malformed(error, PREFIX)) from None


def require(settings: ReviewSettings, *names: str) -> None:
    """Raises SettingsError naming the first of these settings that is empty."""
    for name in names:
        value = getattr(settings, name)
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not plain:
            raise SettingsError(PREFIX + name.upper(), "nothing", "a value", "Set it and start again.")
