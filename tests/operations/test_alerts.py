"""The alert rules and the configuration in Prometheus' own hands: its checker, its rule tests, and Debian's server."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders_compose import DOCKER, example_environment, service
from builders_processes import Program, free_ports, running, until
from builders_serving import bundle

from ml_backend.jobs import JobQueue, request_retrain

OBSERVED = DOCKER / "observability"
RULES = OBSERVED / "alerts.yml"
BACKEND, REVIEW = "backend-token-of-a-test", "review-token-of-a-test"
WEEK = 7 * 24 * 60


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, and what an alert says of them after so many minutes (None: nothing)."""

    alert: str
    series: Mapping[str, str]
    minutes: int
    labels: Mapping[str, str] | None = field(default_factory=dict)
    step: int = 1


def scores(le_half: str) -> dict[str, str]:
    """Twenty lesions an hour; how many of them score a half or less."""
    name = 'dermloop_lesion_score_bucket{version="v",le="%s"}'
    every = {name % "1.0": "0+20x400", name % "+Inf": "0+20x400"}
    return {name % "0.5": le_half, **every, 'dermloop_lesion_score_count{version="v"}': "0+20x400"}


def happened(disputed: str) -> dict[str, str]:
    name = 'dermloop_review_events_total{happened="%s"}'
    return {name % "disputed": disputed, name % "agreed": "0+1x130"}


def waited(within_10: str, within_30: str) -> dict[str, str]:
    name = 'dermloop_request_seconds_bucket{route="/predict",le="%s"}'
    return {name % "10.0": within_10, name % "30.0": within_30, name % "100.0": "0+10x60", name % "+Inf": "0+10x60"}


def up(**jobs: int) -> dict[str, str]:
    return {f'up{{job="{job.replace("_", "-")}",instance="a"}}': f"{value}x90" for job, value in jobs.items()}


PICTURES = 'dermloop_pictures_total{outcome="%s"}'
FAILED = 'dermloop_job_seconds_count{kind="retrain",outcome="failed"}'
LOST, EXPECTED = "dermloop_review_webhooks_lost_total", "dermloop_review_webhooks_expected"
MODEL = 'dermloop_model_info{instance="%s",version="%s"}'
FIRING = (
    Case("ProcessDown", up(ml_backend=1, review=1, worker=0), 5, {"job": "worker", "instance": "a"}),
    Case("ProcessMissing", up(ml_backend=1, worker=1), 10, {"job": "review"}),
    Case("NoChampion", {"dermloop_ready": "0x20"}, 10),
    Case("ChampionNotFollowed", {"dermloop_champion_followed": "0x20"}, 10),
    Case("ReplicasDisagree", {MODEL % ("a", "one"): "1x20", MODEL % ("b", "two"): "1x20"}, 10),
    Case("SlowAnswers", waited("0+1x60", "0+2x60"), 40),
    Case("PicturesFail", {PICTURES % "failed": "0+5x90", PICTURES % "analysed": "0+5x90"}, 80),
    Case("ScoresDrift", scores("0+20x312 6240x88"), 336 * 60, {"version": "v"}, 60),
    Case("JobsFail", {FAILED: "0x10 1x50"}, 30, {"kind": "retrain"}),
    Case("JobsWait", {"dermloop_job_oldest_pending_seconds": "8000x30"}, 20),
    Case("QueueTooOld", {'dermloop_review_oldest_seconds{tier="2"}': "700000x90"}, 70, {"tier": "2"}),
    Case("TasksNotWritten", {"dermloop_review_outbox_lag_seconds": "400x10"}, 8),
    Case("LabelStudioNotFollowed", {"dermloop_review_sync_failing": "1x10"}, 8),
    Case("DisagreementRises", happened("0x84 0+1x40"), 4 * WEEK, {}, 360),
    Case("WebhooksLost", {LOST: "0+1x90", EXPECTED: "1x90"}, 80),
)
QUIET = (
    Case("ProcessDown", up(ml_backend=1, review=1, worker=1), 5, None),
    Case("ProcessMissing", up(ml_backend=1, review=0, worker=1), 10, None),
    Case("NoChampion", {"dermloop_ready": "0x3 1x20"}, 10, None),
    Case("ChampionNotFollowed", {"dermloop_champion_followed": "0x3 1x20"}, 10, None),
    Case("ReplicasDisagree", {MODEL % ("a", "one"): "1x20", MODEL % ("b", "one"): "1x20"}, 10, None),
    Case("SlowAnswers", waited("0+10x60", "0+10x60"), 40, None),
    Case("PicturesFail", {PICTURES % "failed": "0+1x90", PICTURES % "analysed": "0+20x90"}, 80, None),
    Case("ScoresDrift", scores("0+10x400"), 336 * 60, None, 60),
    Case("JobsFail", {FAILED: "1x60"}, 30, None),
    Case("JobsWait", {"dermloop_job_oldest_pending_seconds": "600x30"}, 20, None),
    Case("QueueTooOld", {'dermloop_review_oldest_seconds{tier="2"}': "600000x90"}, 70, None),
    Case("TasksNotWritten", {"dermloop_review_outbox_lag_seconds": "200x10"}, 8, None),
    Case("LabelStudioNotFollowed", {"dermloop_review_sync_failing": "1x3 0x10"}, 8, None),
    Case("DisagreementRises", happened("0+1x130"), 4 * WEEK, None, 360),
    Case("WebhooksLost", {LOST: "0+1x90", EXPECTED: "0x90"}, 80, None),
)


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip("Prometheus is not installed (Debian: apt-get install prometheus)")
    return found


def checked(*words: str) -> str:
    done = subprocess.run([tool("promtool"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> dict[str, dict[str, Any]]:
    found = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in found["groups"] for rule in group["rules"]}


def expected(case: Case) -> list[dict[str, Any]]:
    """The one alert that a case raises, with its sentences filled in."""
    if case.labels is None:
        return []
    rule, given = rules()[case.alert], dict(case.labels)
    told = {k: re.sub(r"{{ \$labels\.(\w+) }}", lambda m: given[m[1]], v) for k, v in rule["annotations"].items()}
    return [{"exp_labels": {**given, **rule["labels"]}, "exp_annotations": told}]


def rule_test(case: Case) -> dict[str, Any]:
    return {
        "interval": f"{case.step}m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": f"{case.minutes}m", "alertname": case.alert, "exp_alerts": expected(case)},
        ],
    }


def test_prometheus_accepts_the_rules_and_the_configuration(tmp_path: Path) -> None:
    assert f"{len(rules())} rules found" in checked("check", "rules", str(RULES))
    text = (OBSERVED / "prometheus.yml").read_text(encoding="utf-8")
    for name in ("backend-token", "review-token"):
        (tmp_path / name).write_text("token", encoding="utf-8")
        assert f"/tmp/{name}" in text
    shutil.copy(RULES, tmp_path)
    (tmp_path / "prometheus.yml").write_text(text.replace("/tmp/", f"{tmp_path}/"), encoding="utf-8")
    assert "is valid" in checked("check", "config", str(tmp_path / "prometheus.yml"))


def test_each_alert_is_raised_by_what_it_is_for_and_by_nothing_less(tmp_path: Path) -> None:
    assert {case.alert for case in FIRING} == {case.alert for case in QUIET} == set(rules())
    for step in sorted({case.step for case in FIRING}):
        cases = [case for case in (*FIRING, *QUIET) if case.step == step]
        page = {"rule_files": [str(RULES)], "evaluation_interval": f"{step}m", "tests": [*map(rule_test, cases)]}
        path = tmp_path / f"{step}.yml"
        path.write_text(yaml.safe_dump(page), encoding="utf-8")
        assert "SUCCESS" in checked("test", "rules", str(path))


def hurried(page: dict[str, Any]) -> dict[str, Any]:
    """The rules with a second wherever they wait."""
    for group in page["groups"]:
        for rule in group["rules"]:
            rule |= {"for": "1s"} if "for" in rule else {}
    return page


@contextlib.contextmanager
def prometheus(folder: Path, targets: Mapping[str, int]) -> Iterator[Program]:
    """Debian's server, started as docker/compose.yaml starts it, asking these ports every second."""
    tool("prometheus")
    (port,) = free_ports(1)
    page = yaml.safe_load((OBSERVED / "prometheus.yml").read_text(encoding="utf-8").replace("/tmp/", f"{folder}/"))
    page["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in page["scrape_configs"]:
        (found,) = job.pop("dns_sd_configs")
        assert found["port"] in (9090, 9091, 9092)
        job["static_configs"] = [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(page), encoding="utf-8")
    (folder / "alerts.yml").write_text(yaml.safe_dump(hurried(yaml.safe_load(RULES.read_text()))), encoding="utf-8")
    made = {"DERMLOOP_ML_METRICS_TOKEN": BACKEND, "DERMLOOP_REVIEW_METRICS_TOKEN": REVIEW}
    found = service("prometheus", {**example_environment(), **made})
    (line,) = found["command"]
    for place, here in {"/etc/prometheus": folder, "=/prometheus": f"={folder}/data", ">/tmp": f">{folder}"}.items():
        line = line.replace(place, str(here))
    line = line.replace("0.0.0.0:9090", f"127.0.0.1:{port}")
    with running([*found["entrypoint"], line], port, folder / "log", "/-/ready", **found["environment"]) as program:
        yield program


def asked(program: Program, query: str) -> list[dict[str, Any]]:
    status, _, body = program.ask(f"/api/v1/query?{urllib.parse.urlencode({'query': query})}")
    assert status == 200, body
    found: list[dict[str, Any]] = json.loads(body)["data"]["result"]
    return found


def firing(program: Program) -> set[str]:
    return {row["metric"]["alertname"] for row in asked(program, 'ALERTS{alertstate="firing"}')}


def test_debian_s_prometheus_watches_running_programs_and_raises_alerts(tmp_path: Path) -> None:
    serving, worker, review = free_ports(3)
    bundle(tmp_path)
    given = {"DERMLOOP_ML_HOME": str(tmp_path), "DERMLOOP_ML_TOKENS": f"observer:{BACKEND}"}
    own = {"DERMLOOP_REVIEW_HOME": str(tmp_path), "DERMLOOP_WORKER_METRICS": f"127.0.0.1:{worker}"}
    failing = f"consume(Path({str(tmp_path)!r}), ['false'])"
    work = f"from pathlib import Path; from dermloop.worker import consume; {failing}"
    serve = [sys.executable, "-m", "dermloop", "serve", "--port", str(serving)]
    targets = {"ml-backend": serving, "worker": worker, "review": review}
    (tmp_path / "watch").mkdir()
    with (
        prometheus(tmp_path / "watch", targets) as watching,
        running([sys.executable, "-c", work], worker, tmp_path / "worker.log", "/metrics", **given, **own),
    ):
        with running(serve, serving, tmp_path / "serving.log", "/readyz", **given) as backend:
            assert backend.ask("/v1/models", Authorization=f"Bearer {BACKEND}")[0] == 403
            until(lambda: len(asked(watching, 'up{job!="review"} == 1')) == 2, 120)
            until(lambda: bool(asked(watching, f"increase({FAILED}[1m]) == 0")), 120)
            assert "JobsFail" not in firing(watching)
            queue = JobQueue.open(tmp_path / "jobs.db")
            request_retrain(queue, "one that fails", "a test")
            queue.close()
            until(lambda: "JobsFail" in firing(watching), 120)
            until(lambda: [row["metric"]["job"] for row in asked(watching, _DOWN)] == ["review"], 120)
        until(lambda: {row["metric"]["job"] for row in asked(watching, _DOWN)} == {"review", "ml-backend"}, 120)
        panels = json.loads((OBSERVED / "dashboards" / "dermloop.json").read_text(encoding="utf-8"))["panels"]
        for expression in (target["expr"] for panel in panels for target in panel["targets"]):
            asked(watching, expression.replace("$__rate_interval", "1m").replace("$__range", "1h"))


_DOWN = 'ALERTS{alertname="ProcessDown",alertstate="firing"}'
