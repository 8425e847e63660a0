"""Configuration of the review service, read once from the environment (`DERMLOOP_REVIEW_…`)."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from review_workflow.errors import SettingsError

PREFIX = "DERMLOOP_REVIEW_"


class ReviewSettings(BaseSettings):
    """Everything the review service has to know; secrets never appear in its representation.

    `home` holds `review.db` and `images/` unless `database_url` and `image_root` name other places. `public_url` is
    where Label Studio reaches this service; without it there are no webhooks, and the timer alone keeps up.
    `metrics_token` is the bearer token for `/metrics`; without it only this machine is told.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    home: Path = Path(".dermloop")
    database_url: str = ""
    label_studio_url: str = "http://127.0.0.1:8080"
    label_studio_token: SecretStr = SecretStr("")
    webhook_secret: SecretStr = SecretStr("")
    session_secret: SecretStr = SecretStr("")
    public_url: str = ""
    policy: Path | None = None
    taxonomy: Path | None = None
    image_root: Path | None = None
    ml_backend_url: str = ""
    ml_backend_user: str = ""
    ml_backend_password: SecretStr = SecretStr("")
    sync_seconds: float = 2.0
    metrics_token: SecretStr = SecretStr("")

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


def read(**overrides: object) -> ReviewSettings:
    """The settings of the environment with overrides; raises SettingsError naming the malformed variable."""
    try:
        return ReviewSettings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(name, first.get("input"), str(first["msg"]), "Correct the variable.") from error


def require(settings: ReviewSettings, *names: str) -> None:
    """Raises SettingsError naming the first of these settings that is empty."""
    for name in names:
        value = getattr(settings, name)
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not plain:
            raise SettingsError(PREFIX + name.upper(), "nothing", "a value", "Set it and start again.")
