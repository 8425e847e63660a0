"""compose.yaml against the Compose specification, the settings in code, the images, and itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from builders_compose import (
    DOCKER,
    MissingError,
    example_environment,
    filled,
    raw,
    redis_options,
    references,
    service,
)
from dockerfile_parse import DockerfileParser

from dermloop.cli import app
from ml_backend.access import Role, tokens
from ml_backend.settings import Settings as ServingSettings
from ml_backend.settings import read_settings
from review_workflow.settings import ReviewSettings
from telemetry.settings import TelemetrySettings

ROOT = Path(__file__).parents[2]
OURS = (
    "serving",
    "serving-large",
    "review",
    "review-large",
    "worker",
    "worker-gpu",
    "bulk",
    "watcher",
    "setup",
    "backup",
)
THEIRS = ("postgres", "redis", "objects", "proxy", "label-studio", "label-studio-web", "prometheus", "grafana")
OTHER_SETTINGS = {
    *("DERMLOOP_HOME", "DERMLOOP_CACHE", "DERMLOOP_ADMIN_EMAIL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("AWS_DEFAULT_REGION", "DERMLOOP_BACKUP_LABEL_STUDIO_DATA", "DERMLOOP_BACKUP_LABEL_STUDIO_DATABASE"),
    *("DERMLOOP_BACKUP_BUCKETS", "DERMLOOP_REGISTRY", "AWS_ENDPOINT_URL_S3"),
}


def environment_of(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in service(name, example_environment()).get("environment", {}).items()}


def dockerfile_of(name: str) -> DockerfileParser:
    return DockerfileParser(path=str(ROOT / raw()["services"][name]["build"]["dockerfile"]))


def values(parsed: DockerfileParser, kind: str) -> list[str]:
    return [step["value"] for step in parsed.structure if step["instruction"] == kind]


def test_it_keeps_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(DOCKER / "compose.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_explains_every_variable_and_no_other() -> None:
    lines = (DOCKER / ".env.example").read_text(encoding="utf-8").splitlines()
    named = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert sorted(named) == sorted({*references(), "COMPOSE_PROFILES"})
    headed = re.findall(r"# .*\n(?:[A-Z0-9_]+=.*\n)+", "\n".join(lines) + "\n")
    assert sum(len(block.strip().splitlines()) - 1 for block in headed) == len(named)


def test_each_copy_of_the_example_has_secrets_of_its_own() -> None:
    first, second = example_environment(), example_environment()
    made = [name for name, value in first.items() if re.fullmatch("[0-9a-f]{40}", value)]
    assert len(made) == 13 and all(first[name] != second[name] for name in made)
    assert "CHANGE-ME" not in first.values()


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_our_programs_is_a_setting_that_they_read(name: str) -> None:
    known = {f"DERMLOOP_ML_{field.upper()}" for field in ServingSettings.model_fields}
    known |= {f"DERMLOOP_REVIEW_{field.upper()}" for field in ReviewSettings.model_fields}
    known |= {f"DERMLOOP_{field.upper()}" for field in TelemetrySettings.model_fields}
    assert set(environment_of(name)) - known - OTHER_SETTINGS == set()


def test_the_settings_that_compose_gives_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environment_of("worker").items():
        monkeypatch.setenv(key, value)
    serving, review = read_settings(), ReviewSettings()
    assert list(tokens(serving)) == [Role.OBSERVER] and serving.jobs_address.startswith("redis://")
    assert review.database.startswith("postgresql://") and str(review.images) == "/srv/dermloop/served/images"
    assert (review.ml_backend_user, review.ml_backend_password) == (
        serving.basic_auth_user,
        serving.basic_auth_password,
    )


@pytest.mark.parametrize(
    "name", sorted(re.findall(r"^([A-Z0-9_]+)=CHANGE-ME", (DOCKER / ".env.example").read_text(), re.M))
)
def test_a_missing_secret_stops_compose_with_its_name_and_the_cure(name: str) -> None:
    environment = {key: value for key, value in example_environment().items() if key != name}
    with pytest.raises(MissingError, match=rf"required variable {name} is missing a value: run docker/new-env"):
        filled(raw()["services"], environment)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("worker", "DERMLOOP_REVIEW_ML_BACKEND_URL"),
        ("worker", "DERMLOOP_REVIEW_PUBLIC_URL"),
        ("worker", "DERMLOOP_REVIEW_LABEL_STUDIO_URL"),
        ("proxy", "DERMLOOP_REVIEW_UPSTREAM"),
        ("proxy", "DERMLOOP_MODEL_UPSTREAM"),
        ("proxy", "DERMLOOP_LABEL_UPSTREAM"),
        ("proxy", "DERMLOOP_WATCH_UPSTREAM"),
    ],
)
def test_every_address_names_a_service_and_the_port_that_its_process_listens_on(name: str, key: str) -> None:
    host, port = re.findall(r"([a-z-]+)(?:\.dermloop\.internal)?[ :](\d+)$", environment_of(name)[key])[0]
    if host in ("label-studio-web", "grafana"):
        assert port in str(raw()["services"][host]["healthcheck"]["test"])
        return
    parsed = dockerfile_of(host)
    assert port in values(parsed, "EXPOSE")
    assert port in values(parsed, "CMD")[-1] or environment_of(host)["DERMLOOP_ML_PORT"] == port


@pytest.mark.parametrize("name", ["review", "review-large"])
def test_the_review_shows_the_queue_that_the_worker_works_on(name: str) -> None:
    review, worker = (raw()["services"][each]["environment"] for each in (name, "worker"))
    assert review["DERMLOOP_ML_JOBS_URL"] == worker["DERMLOOP_ML_JOBS_URL"]
    assert "dermloop.review_app:app" in values(dockerfile_of(name), "CMD")[-1]


def test_only_the_proxy_is_published() -> None:
    assert [name for name, found in raw()["services"].items() if "ports" in found] == ["proxy"]
    proxy = service("proxy", example_environment())
    addresses = [proxy["environment"][f"DERMLOOP_{part}_ADDRESS"] for part in ("LABEL", "REVIEW", "MODEL", "WATCH")]
    ports = {re.findall(r":(\d+)$", address)[0] if address.count(":") > 1 else "443" for address in addresses}
    assert ports | {"80"} == {entry.partition(":")[0] for entry in proxy["ports"]}


def test_databases_queue_and_objects_are_on_a_network_without_a_way_out() -> None:
    assert raw()["networks"]["back"] == {"internal": True}
    for name in ("postgres", "redis", "objects"):
        assert raw()["services"][name]["networks"] == ["back"]


@pytest.mark.parametrize("name", [*OURS, *THEIRS])
def test_each_service_is_pinned_without_rights_and_checked(name: str) -> None:
    found = service(name, example_environment())
    tag = found["image"].rpartition(":")[2]
    assert re.match(r"v?\d+\.\d+", tag), found["image"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    if name in OURS:
        assert found["read_only"] and found["cap_drop"] == ["ALL"]
    one_shot = name in ("setup", "backup")
    assert one_shot or "healthcheck" in found or values(dockerfile_of(name), "HEALTHCHECK")


def test_every_volume_and_mounted_file_is_there() -> None:
    named = {str(entry).split(":")[0] for found in raw()["services"].values() for entry in found.get("volumes", ())}
    files = {name for name in named if name.startswith("./")}
    assert all((DOCKER / name).exists() for name in files - {"./proxy/certificates"})
    assert {name for name in named if name[0].isalpha()} == set(raw()["volumes"])


@pytest.mark.parametrize(
    "profiles", [{"cpu", "small"}, {"gpu", "small"}, {"cpu", "large"}, {"gpu", "large", "objects"}]
)
def test_every_profile_has_one_of_each_program(profiles: set[str]) -> None:
    running = {n: s for n, s in raw()["services"].items() if not s.get("profiles") or profiles & set(s["profiles"])}
    aliases: dict[str, int] = {}
    for found in running.values():
        networks = found["networks"]
        for alias in (networks["front"] or {}).get("aliases", []) if isinstance(networks, dict) else []:
            aliases[alias] = aliases.get(alias, 0) + 1
    names = ("serving", "review")
    assert aliases == {"worker": 1, **{alias: 1 for name in names for alias in (name, f"{name}.dermloop.internal")}}
    assert len({"worker", "worker-gpu"} & set(running)) == 1
    assert {"postgres", "redis", "proxy", "label-studio", "label-studio-web", "setup"} <= set(running)
    for found in running.values():
        assert set(found.get("depends_on", {})) <= set(running) | {"objects"}


def test_the_command_line_of_each_service_is_one_of_dermloop() -> None:
    known: Any = typer.main.get_command(app)
    for name in OURS:
        found = service(name, example_environment())
        words = [*found.get("entrypoint", ()), *(found.get("command") or ())]
        if words[:1] == ["dermloop"]:
            command = known.commands[words[1]]
            if hasattr(command, "commands"):
                command = command.commands[words[2]]
            options = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--") and word != "--help"} <= options, name


def test_prometheus_asks_every_program_by_its_name_and_port_and_grafana_asks_prometheus() -> None:
    folder = DOCKER / "observability"
    jobs = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    asked = {name: found["port"] for job in jobs for found in job["dns_sd_configs"] for name in found["names"]}
    assert asked == {"serving": 9090, "review": 9091, "worker": 9092, "bulk": 9092, "watcher": 9092}
    assert environment_of("serving")["DERMLOOP_ML_PORT"] == str(asked["serving"])
    assert {environment_of(name)["DERMLOOP_WORKER_METRICS"] for name in ("worker", "bulk", "watcher")} == {
        "0.0.0.0:9092"
    }
    for name in (*asked, "prometheus", "grafana"):
        assert "front" in raw()["services"][name]["networks"]
    (source,) = yaml.safe_load((folder / "grafana" / "datasources.yml").read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090" and "0.0.0.0:9090" in service_words("prometheus")
    (boards,) = yaml.safe_load((folder / "grafana" / "dashboards.yml").read_text(encoding="utf-8"))["providers"]
    mounted = [entry.split(":")[1] for entry in raw()["services"]["grafana"]["volumes"]]
    assert boards["options"]["path"] in mounted
    home = environment_of("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (folder / "dashboards" / Path(home).name).is_file() and home.startswith(boards["options"]["path"])


def service_words(name: str) -> str:
    return " ".join(service(name, example_environment())["command"])


@pytest.mark.parametrize("name", ["serving", "review", "training"])
def test_an_image_brings_what_traces_ask_for(name: str) -> None:
    given = environment_of({"training": "worker"}.get(name, name))
    assert {"DERMLOOP_TRACES", "DERMLOOP_TRACE_SHARE"} <= set(given)
    listed = (DOCKER / "serving" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    runs = values(DockerfileParser(path=str(DOCKER / name / "Dockerfile")), "RUN")
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(extra["tracing"]) <= set(listed)
    assert name == "serving" or any("--extra tracing" in run for run in runs)


def test_redis_keeps_what_it_was_told() -> None:
    options = " ".join(redis_options())
    assert "--appendonly yes" in options and "--maxmemory-policy noeviction" in options


def test_label_studio_is_told_the_same_as_on_a_laptop() -> None:
    text = (ROOT / "dermloop" / "stack" / "programs.py").read_text(encoding="utf-8")
    told = set(re.findall(r'"((?:LABEL_STUDIO|ML|USE|USER|COLLECT|LATEST|SENTRY|FRONTEND)_[A-Z_]+)":', text))
    assert len(told) > 10
    ours = {"LABEL_STUDIO_URL", "LABEL_STUDIO_TOKEN", "ML_BACKEND_URL", "ML_BACKEND_USER", "ML_BACKEND_PASSWORD"}
    assert told - set(environment_of("label-studio")) - ours == {"LABEL_STUDIO_BASE_DATA_DIR"}
