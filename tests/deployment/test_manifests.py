"""The manifests of Kubernetes and Cloud Run against Kubernetes' schemas, the image and the routes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from builders_compose import DOCKER
from builders_serving import bundle
from dockerfile_parse import DockerfileParser

from ml_backend.app import create_app
from ml_backend.settings import Settings, read_settings


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DOCKER / name / "serving.yaml").read_text(encoding="utf-8")))


def kinds() -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in documents("kubernetes")}


def container(name: str) -> dict[str, Any]:
    found = kinds()["Deployment"] if name == "kubernetes" else documents("cloud-run")[0]
    return dict(found["spec"]["template"]["spec"]["containers"][0])


@pytest.mark.parametrize("document", documents("kubernetes"), ids=lambda document: str(document["kind"]))
def test_each_object_keeps_kubernetes_schema_to_the_letter(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.33", strict=True)


def test_the_cloud_run_service_has_a_pod_that_kubernetes_would_take() -> None:
    """Cloud Run's container, probes and volumes are Kubernetes' own; only what surrounds them is Knative's."""
    (service,) = documents("cloud-run")
    assert (service["apiVersion"], service["kind"]) == ("serving.knative.dev/v1", "Service")
    spec = dict(service["spec"]["template"]["spec"])
    assert spec.pop("containerConcurrency") > 0 and spec.pop("timeoutSeconds") >= 100
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": spec}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}
    whole = {**deployment, "spec": {"selector": {"matchLabels": labels}, "template": template}}
    kubernetes_validate.validate(whole, "1.33", strict=True)
    assert sum(entry["percent"] for entry in service["spec"]["traffic"]) == 100


@pytest.mark.parametrize("name", ["kubernetes", "cloud-run"])
def test_ports_settings_and_folders_are_those_of_the_image(name: str) -> None:
    parsed = DockerfileParser(path=str(DOCKER / "serving" / "Dockerfile"))
    found = container(name)
    exposed = next(step["value"] for step in parsed.structure if step["instruction"] == "EXPOSE")
    assert [str(port["containerPort"]) for port in found["ports"]] == [exposed]
    known = {f"DERMLOOP_ML_{field.upper()}" for field in Settings.model_fields}
    assert {entry["name"] for entry in found["env"]} <= known
    assert any(mount["mountPath"] == "/srv/dermloop/models" for mount in found["volumeMounts"])


@pytest.mark.parametrize("name", ["kubernetes", "cloud-run"])
def test_each_probe_asks_a_route_that_needs_no_login_and_says_what_it_is_asked(name: str, tmp_path: Path) -> None:
    app = create_app(read_settings(home=tmp_path, basic_auth_user="label-studio", basic_auth_password="a password"))
    client, found = app.test_client(), container(name)
    paths = {kind: found[kind]["httpGet"]["path"] for kind in found if kind.endswith("Probe")}
    ready = paths.get("readinessProbe", paths["startupProbe"])
    assert client.get(paths["livenessProbe"]).status_code == 200
    assert client.get(ready).status_code == 503
    bundle(tmp_path)
    app.extensions["dermloop"].host.refresh()
    assert client.get(ready).status_code == 200
    app.extensions["dermloop"].close()


def test_a_rolling_update_takes_no_replica_away_before_its_successor_is_ready() -> None:
    deployment = kinds()["Deployment"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pause = int(container("kubernetes")["lifecycle"]["preStop"]["exec"]["command"][1])
    assert deployment["template"]["spec"]["terminationGracePeriodSeconds"] >= pause + 20
    scaler = kinds()["HorizontalPodAutoscaler"]["spec"]
    assert scaler["minReplicas"] == deployment["replicas"] >= 2 < scaler["maxReplicas"]
    labels = deployment["template"]["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = kinds()[kind]["spec"]
        chosen = spec.get("selector") or spec["podSelector"]
        assert chosen.get("matchLabels", chosen) == labels
