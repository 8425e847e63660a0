"""The programs of a local stack: how each is started, and how it says that it is ready."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dermloop.home import Home
from dermloop.stack.ports import HOST, Ports
from dermloop.stack.secrets import StackSecrets

LABEL_STUDIO, BACKEND, REVIEW, WORKER = "label-studio", "ml-backend", "review", "worker"
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "VIRTUAL_ENV")
_TUNING = ("OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES", "PYTHONWARNINGS", "LOG_LEVEL")
_OURS = ("DERMLOOP_", "AWS_", "MLFLOW_")


@dataclass(frozen=True, slots=True)
class Program:
    """One process: its command, its environment, and the address that answers 200 when it is ready (None: none)."""

    name: str
    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    health_url: str | None = None
    patience: float = 120.0


def programs(home: Home, ports: Ports, secrets: StackSecrets, label_studio: Path) -> tuple[Program, ...]:
    """The four programs of a home folder in the order of their start; `label_studio` is that program's path."""
    shared = {**_inherited(os.environ), **own_settings(home, ports, secrets)}
    return (
        _label_studio(home, ports, secrets, label_studio),
        Program(BACKEND, "ML backend", _ours("serve"), shared, f"{url(ports.backend)}/health"),
        _review(ports, shared),
        Program(WORKER, "Job worker", _ours("worker"), shared),
    )


def _label_studio(home: Home, ports: Ports, secrets: StackSecrets, program: Path) -> Program:
    port = str(ports.label_studio)
    command = (str(program), "start", "--no-browser", "--internal-host", HOST, "--port", port)
    environment = {
        **{name: value for name, value in os.environ.items() if name in _KEPT and name != "VIRTUAL_ENV"},
        **{name: value for name, value in os.environ.items() if name.startswith(("DJANGO_DB", "POSTGRE_"))},
        "LABEL_STUDIO_HOST": url(ports.label_studio),
        "LABEL_STUDIO_BASE_DATA_DIR": str(home.label_studio),
        "LABEL_STUDIO_USERNAME": secrets.admin.email,
        "LABEL_STUDIO_PASSWORD": secrets.admin.password,
        "LABEL_STUDIO_USER_TOKEN": secrets.admin.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(home.served),
        # The backend and the webhooks are on this machine; the address of cloud metadata stays closed.
        "ML_BLOCK_LOCAL_IP": "false",
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "USER_ADDITIONAL_BANNED_SUBNETS": "169.254.0.0/16",
        # Puts SQLite in write-ahead mode: readers and the writer stop locking one another out.
        "AZURE_MOUNT_FIX": "true",
        "COLLECT_ANALYTICS": "0",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    return Program(LABEL_STUDIO, "Label Studio", command, environment, f"{url(ports.label_studio)}/health", 400.0)


def _review(ports: Ports, environment: Mapping[str, str]) -> Program:
    listening = ("--config", "python:telemetry.gunicorn_config", "--name", "review", "--bind", f"{HOST}:{ports.review}")
    command = (
        sys.executable, "-m", "gunicorn", *listening, "--workers", "1", "--threads", "8", "dermloop.review_app:app"
    )  # fmt: skip
    return Program(REVIEW, "Review service", command, environment, f"{url(ports.review)}/health")


def _ours(command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "dermloop", command)


def own_settings(home: Home, ports: Ports, secrets: StackSecrets) -> dict[str, str]:
    """The settings of our own programs, each under its own prefix; their settings.py says what each name means."""
    both = {
        "HOME": str(home.root),
        "LABEL_STUDIO_URL": url(ports.label_studio),
        "LABEL_STUDIO_TOKEN": secrets.admin.token,
    }
    link_secret = hashlib.sha256(f"links to heat-maps {secrets.session_key}".encode()).hexdigest()
    backend = {
        **both,
        "PORT": str(ports.backend),
        "UPLOAD_ROOT": str(home.label_studio / "media"),
        "BASIC_AUTH_USER": secrets.backend_user,
        "BASIC_AUTH_PASSWORD": secrets.backend_password,
        "PUBLIC_URL": url(ports.backend),
        "LINK_SECRET": link_secret,
    }
    review = {
        **both,
        "IMAGE_ROOT": str(home.served / home.images.name),
        "WEBHOOK_SECRET": secrets.webhook,
        "SESSION_SECRET": secrets.session_key,
        "PUBLIC_URL": url(ports.review),
        "ML_BACKEND_URL": url(ports.backend),
        "HEATMAP_URL": url(ports.backend),
        "LINK_SECRET": link_secret,
        "ML_BACKEND_USER": secrets.backend_user,
        "ML_BACKEND_PASSWORD": secrets.backend_password,
    }
    return {
        "DERMLOOP_HOME": str(home.root),
        "PYTHONUNBUFFERED": "1",
        **{f"DERMLOOP_ML_{name}": value for name, value in backend.items()},
        **{f"DERMLOOP_REVIEW_{name}": value for name, value in review.items()},
    }


def _inherited(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {*_KEPT, *_TUNING}
    return {name: value for name, value in environment.items() if name in kept or name.startswith(_OURS)}


def url(port: int) -> str:
    """Address of a local program by its port."""
    return f"http://{HOST}:{port}"
