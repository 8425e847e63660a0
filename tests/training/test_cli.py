"""The commands do what their help says, in words and in JSON."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import typer
from builders_serving import bundle
from builders_training import served_version
from typer.testing import CliRunner

from converters.dataset import freeze
from ml_backend.bundle import ModelBundle, champion_version
from training import runs
from training.cli import app
from training.command_options import named_version, resumed_version, shown_progress
from training.config import TrainingConfig
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


def test_an_interrupted_command_ends_with_the_way_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, shown_progress(as_json=False) as progress:
        progress("detector", 1, 3, "loss 2.0")
        raise KeyboardInterrupt("Go on with --resume this.")
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err.endswith("Interrupted. Go on with --resume this.\n")


def test_a_run_is_taken_up_on_the_version_that_it_began_with(tmp_path: Path) -> None:
    first, second = served_version(tmp_path), served_version(tmp_path / "other", ungradable=True)
    newest = freeze(
        second.dataset,
        {one.record.image_id: second.path(one) for one in second.dataset.items},
        tmp_path / "datasets",
        {},
    )
    begun = runs.start(tmp_path / "runs", "detector", first.digest, TrainingConfig())
    assert named_version(tmp_path, "").digest == newest.digest
    assert resumed_version(tmp_path, "", begun.run_id).digest == first.digest
    assert resumed_version(tmp_path, newest.digest[:16], begun.run_id).digest == newest.digest


def test_words_that_are_no_split_and_patients_nobody_knows_are_told(home: Path) -> None:
    bundle(home)
    with pytest.raises(DataError, match="one of train, val, test"):
        run(home, "evaluate", "--split", "tests")
    result = CliRunner().invoke(app, ["trace", "nobody", "--home", str(home)], catch_exceptions=False)
    assert "has an image of 'nobody'" in result.stdout
