"""`dermloop review …`: every command is in the README, takes --json, and ends with 1 and a sentence where it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders_review import QA, TWO_READERS, MemoryLabelStudio, a_service, a_store, an_image
from typer.main import get_command
from typer.testing import CliRunner

import review_workflow
from review_workflow.cli import app

README = Path(review_workflow.__file__).with_name("README.md").read_text()
RUNNER = CliRunner()
IMAGE = an_image().image_id


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERMLOOP_REVIEW_HOME", str(tmp_path))
    service = a_service(a_store(tmp_path), MemoryLabelStudio(), TWO_READERS)
    service.register([an_image()])
    service.close()
    return tmp_path


def run(*arguments: str) -> dict[str, object]:
    done = RUNNER.invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_every_command_is_in_the_readme_and_takes_json() -> None:
    group = get_command(app)
    commands = dict(group.commands)  # type: ignore[attr-defined]
    people = commands.pop("people")
    for name, command in [*commands.items(), *people.commands.items()]:
        assert name in README
        assert any("--json" in parameter.opts for parameter in command.params), name
        assert command.help


def test_status_and_show_tell_where_an_image_stands(home: Path) -> None:
    assert run("status")["states"] == {"imported": 1}
    shown = run("show", IMAGE)
    assert (shown["state"], shown["revision"]) == ("imported", 1)
    assert "imported, revision 1" in RUNNER.invoke(app, ["show", IMAGE]).output


def test_readers_are_measured(home: Path) -> None:
    assert run("readers") == {"quality": [], "gold": []}
    assert "Nobody has been measured yet." in RUNNER.invoke(app, ["readers"]).output


def test_people_are_added_and_sent_on_leave(home: Path) -> None:
    run("people", "add", "new@example.org", "dermatologist", "--expertise", "mel")
    run("people", "leave", "new@example.org")
    people = {p["email"]: p for p in run("people", "list")["people"]}  # type: ignore[attr-defined]
    assert (people["new@example.org"]["active"], people["new@example.org"]["expertise"]) == (False, ["mel"])
    run("people", "back", "new@example.org")
    assert RUNNER.invoke(app, ["people", "add", "x@example.org", "boss"]).exit_code == 1


def test_work_is_assigned_by_order(home: Path) -> None:
    run("assign", f"{IMAGE}:1:1:1", "tech2@example.org", "--by", QA.email)
    assert run("show", IMAGE)["works"] == [
        {"key": f"{IMAGE}:1:1:1", "assignee": "tech2@example.org", "status": "waiting"}
    ]


def test_a_patient_is_withdrawn(home: Path) -> None:
    assert run("withdraw", "patient-0")["images"] == [IMAGE]
    assert run("status")["states"] == {"withdrawn": 1}


def test_the_audit_log_is_exported_and_verified(home: Path) -> None:
    found = run("verify-audit")
    assert (found["intact"], found["problems"]) == (True, [])
    assert run("verify-audit", "--anchor", str(found["anchor"]))["intact"]
    other = RUNNER.invoke(app, ["verify-audit", "--anchor", f"1:{'0' * 64}", "--json"])
    assert (other.exit_code, json.loads(other.stdout)["problems"][0]["seq"]) == (1, 1)
    lines = RUNNER.invoke(app, ["export", "--image", IMAGE]).output.splitlines()
    assert [json.loads(line)["happened"] for line in lines] == ["registered"]
    assert RUNNER.invoke(app, ["export", "--csv"]).output.startswith("seq,at,actor")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show", "no-image"], "no-image"),
        (["send-back", IMAGE, "--by", "nobody@example.org", "--reason", "x"], "nobody@example.org"),
        (["send-back", IMAGE, "--by", QA.email, "--reason", "x"], "nothing to send back"),
        (["assign", "nonsense", "a@example.org", "--by", QA.email], "image:tier:round:slot"),
        (["withdraw", "nobody"], "a patient with images"),
        (["sync"], "DERMLOOP_REVIEW_LABEL_STUDIO_TOKEN"),
        (["setup"], "DERMLOOP_REVIEW_LABEL_STUDIO_TOKEN"),
        (["install-actions", "/nowhere"], "label-studio"),
        (["verify-audit", "--anchor", "nonsense"], "number:digest"),
    ],
)
def test_a_failure_is_one_sentence_and_exit_status_1(home: Path, arguments: list[str], told: str) -> None:
    done = RUNNER.invoke(app, arguments)
    assert done.exit_code == 1
    assert told in done.output
    assert "Traceback" not in done.output


def test_actions_are_dropped_into_label_studios_environment(tmp_path: Path) -> None:
    folder = tmp_path / "lib/python3.11/site-packages/label_studio/data_manager/actions"
    folder.mkdir(parents=True)
    assert run("install-actions", str(tmp_path)) == {"written": True}
    assert run("install-actions", str(tmp_path)) == {"written": False}
    assert "def dermloop_accept" in (folder / "dermloop_review.py").read_text()
