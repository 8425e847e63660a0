"""The commands do what their help says, in words and in JSON."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from builders_serving import bundle
from builders_training import served_version
from typer.testing import CliRunner

from ml_backend.bundle import ModelBundle, champion_version
from training.cli import app
from training.decoy import worse_candidate
from training.errors import DataError, RegistryError

POLICY = """
[open]
about = "for a test"
minimum_images = 4
confidence = 0.5
resamples = 50
rules = [{ metric = "map50", floor = 0.5, margin = 0.05, minimum_cases = 3 }]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    served_version(tmp_path)
    (tmp_path / "policies.toml").write_text(POLICY)
    config = f'[gate]\npolicy = "open"\npolicies = "{tmp_path / "policies.toml"}"\n[evaluation]\nresamples = 20\n'
    (tmp_path / "config.toml").write_text(config)
    return tmp_path


def run(home: Path, *words: str, status: int = 0) -> list[dict[str, object]]:
    where = ["--home", str(home), "--json"]
    settings = ["--config", str(home / "config.toml")] if words[0] in ("evaluate", "compare", "promote") else []
    result = CliRunner().invoke(app, [*words, *where, *settings], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def promoted(home: Path, name: str) -> ModelBundle:
    one = bundle(home, champion=False, name=name)
    run(home, "promote", one.version, "--why", "it passed")
    return one


def test_evaluate_prints_every_metric_and_leaves_a_page(home: Path) -> None:
    one = bundle(home)
    [row] = run(home, "evaluate")
    assert row["model"] == one.version
    metrics = row["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["map50"]["value"] == pytest.approx(1.0)
    assert (one.root / "report.html").is_file()
    assert (one.root / "MODEL_CARD.md").is_file()


def test_promote_rollback_and_models_tell_one_story(home: Path) -> None:
    one, other = promoted(home, "one"), promoted(home, "two")
    [entry] = run(home, "rollback", "--why", "worse in use")
    assert (entry["change"], entry["version"], entry["previous"]) == ("rollback", one.version, other.version)
    assert champion_version(home / "models") == one.version
    rows = {row["version"]: row for row in run(home, "models")}
    assert rows[one.version]["champion"] is True
    assert rows[other.version]["champion"] is False
    assert [entry["why"] for entry in rows[one.version]["promotions"]] == ["it passed", "worse in use"]  # type: ignore[attr-defined]


def test_compare_refuses_a_worse_candidate_with_reasons_and_promote_obeys(home: Path) -> None:
    champion = promoted(home, "one")
    worse = worse_candidate(champion, home / "models")
    promising = bundle(home, champion=False, name="same", score=0.9)
    [good] = run(home, "compare", promising.version)
    assert good["passed"] is True
    silent = bundle(home, champion=False, name="blind", detector=False)
    [void] = run(home, "compare", silent.version)
    assert void["reasons"] == ["the champion has a detector, the candidate has none"]
    with pytest.raises(RegistryError, match="candidate has none"):
        run(home, "promote", silent.version, "--why", "hope")
    assert champion_version(home / "models") == champion.version
    [forced] = run(home, "promote", worse.version, "--why", "a drill", "--force")
    assert forced["forced"] == ["no gate decision"]


def test_a_dataset_that_is_not_there_names_those_that_are(home: Path) -> None:
    bundle(home)
    with pytest.raises(DataError, match=r"one of: [0-9a-f]{16}"):
        run(home, "evaluate", "--dataset", "feedfeed")


def test_every_setting_is_printed(home: Path) -> None:
    result = CliRunner().invoke(app, ["training-config", "--config", "first"], catch_exceptions=False)
    assert tomllib.loads(result.stdout)["gate"]["policy"] == "first-bundle"
