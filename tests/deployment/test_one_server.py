"""docker/compose.yaml as a whole: its programs with its settings in one network, set up twice, used, and backed up.

The images are built and run in the kitchen; PostgreSQL, Redis and Caddy are Debian's, Label Studio is the one that is
installed beside us. All of them answer to the names and listen on the ports that compose.yaml gives them.
"""

from __future__ import annotations

import csv
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders_compose import DOCKER, example_environment, service
from builders_kitchen import ROOT, Kitchen, Stage, kitchen
from builders_serving import bundle

pytestmark = pytest.mark.soak
HOSTS = (
    *("postgres", "redis", "objects", "label-studio-web"),
    *("serving", "serving.dermloop.internal", "review", "review.dermloop.internal"),
)
PEOPLE = (("tina@example.org", "technician"), ("dora@example.org", "dermatologist"), ("quinn@example.org", "qa"))


@dataclass
class Server:
    """The running server: its kitchen, its settings, its volumes, and the container that commands are run in."""

    cook: Kitchen
    environment: dict[str, str]
    volumes: dict[str, Path]
    ours: Stage

    def command(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A one-shot service of compose.yaml, with other words where they are given."""
        found = service(name, self.environment)
        line = [*found.get("entrypoint", ()), *(words or found["command"])]
        settings = {key: str(value) for key, value in found["environment"].items()}
        return self.cook.run(self.ours, line, **settings)


@pytest.fixture(scope="module")
def volumes() -> Iterator[dict[str, Path]]:
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield filled(Path(folder))


def filled(place: Path) -> dict[str, Path]:
    """The volumes of a new server, with a champion and a table of people; each belongs to its service's user."""
    place.chmod(0o755)
    names = ("home", "images", "models", "model-cache", "label-studio", "postgres", "redis", "backups", "./people.csv")
    found = {name: place / name for name in names if not name.startswith(".")}
    for folder in found.values():
        folder.mkdir()
    bundle(place / "made")
    subprocess.run(["cp", "-R", str(place / "made" / "models") + "/.", str(found["models"])], check=True)
    table = place / "people.csv"
    table.write_text("email,role,first_name,last_name\n" + "".join(f"{mail},{role},,\n" for mail, role in PEOPLE))
    subprocess.run(["chown", "-R", "10001:10001", *(str(found[name]) for name in names[:4])], check=True)
    subprocess.run(["chown", "1001:0", str(found["label-studio"])], check=True)
    subprocess.run(["chown", "postgres", str(found["postgres"])], check=True)
    return {**found, "./people.csv": table}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, volumes: dict[str, Path]) -> Iterator[Server]:
    environment = example_environment()
    with kitchen(tmp_path_factory.mktemp("kitchen") / "files") as cook:
        start_postgresql(cook, volumes["postgres"], environment)
        redis = [str(word) for word in service("redis", environment)["command"]]
        cook.outside([*redis, "--dir", str(volumes["redis"])])
        studio = cook.build("docker/label-studio/Dockerfile")
        found = service("label-studio", environment)
        program = str(ROOT / ".venv-label-studio" / "bin" / "label-studio")
        found["command"] = [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", "8085"]
        found["environment"] |= {"LABEL_STUDIO_BASE_DATA_DIR": "/label-studio/data", "HOME": "/tmp"}
        cook.start(studio, found, volumes, HOSTS)
        serving = cook.build("docker/serving/Dockerfile")
        cook.healthy(serving, cook.start(serving, service("serving", environment), volumes, HOSTS), 120)
        ours = cook.build("docker/review/Dockerfile")
        review = service("review", environment)
        review["volumes"] = [*review["volumes"], "./people.csv:/etc/dermloop/people.csv:ro"]
        review["volumes"] += ["label-studio:/label-studio/data", "backups:/backups"]
        process = cook.start(ours, review, volumes, HOSTS)
        cook.healthy(ours, process, 180)
        yield Server(cook, environment, volumes, ours)


def start_postgresql(cook: Kitchen, folder: Path, environment: dict[str, str]) -> None:
    """Debian's server as compose.yaml starts its own: user, password, a first database, the file for the other."""
    found = service("postgres", environment)
    given = found["environment"]
    tools = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    secret = folder.parent / "password"
    secret.write_text(given["POSTGRES_PASSWORD"])
    secret.chmod(0o644)
    data = folder / "data"
    as_postgres = ["runuser", "-u", "postgres", "--"]
    options = ["-U", given["POSTGRES_USER"], "-A", "scram-sha-256", f"--pwfile={secret}", given["POSTGRES_INITDB_ARGS"]]
    subprocess.run([*as_postgres, str(tools / "initdb"), "-D", str(data), *options], check=True, capture_output=True)
    program, *rest = [str(word) for word in found["command"]]
    cook.outside([*as_postgres, str(tools / program), "-D", str(data), "-k", str(folder), *rest])
    login = {"PGPASSWORD": given["POSTGRES_PASSWORD"], "PGUSER": given["POSTGRES_USER"], "PGHOST": str(folder)}
    deadline = time.monotonic() + 60
    for words in (
        ["-c", f"CREATE DATABASE {given['POSTGRES_DB']}"],
        ["-f", str(DOCKER / "postgres" / "databases.sql")],
    ):
        line = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", *words]
        while (done := subprocess.run(line, env={**os.environ, **login}, capture_output=True, text=True)).returncode:
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.3)


def test_the_server_is_set_up_once_and_a_second_time_changes_nothing(server: Server) -> None:
    first = server.command("setup")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "connected the ML backend" in first.stdout and first.stdout.count("created the webhook") == 3
    kept = server.volumes["home"] / "logins.csv"
    with kept.open(newline="") as stream:
        passwords = {row["email"]: row["first_password"] for row in csv.DictReader(stream)}
    assert set(passwords) == {mail for mail, _ in PEOPLE}
    assert (kept.stat().st_mode & 0o777, kept.stat().st_uid) == (0o600, 10001)
    again = server.command("setup")
    assert (again.returncode, again.stdout) == (0, "Everything was as it should be.\n"), again.stderr


def test_a_wrong_setting_is_one_sentence(server: Server) -> None:
    for name, value, sentence in (
        ("DERMLOOP_ADMIN_EMAIL", "", "DERMLOOP_ADMIN_EMAIL: nothing; expected the e-mail address"),
        ("DERMLOOP_REVIEW_WEBHOOK_SECRET", "", "DERMLOOP_REVIEW_WEBHOOK_SECRET: got 'nothing'; expected a value."),
        ("DERMLOOP_REVIEW_LABEL_STUDIO_TOKEN", "0" * 40, "refused; expected an accepted token. Set the token that"),
    ):
        found = service("setup", server.environment)
        settings = {**{key: str(text) for key, text in found["environment"].items()}, name: value}
        done = server.cook.run(server.ours, found["command"], **settings)
        assert done.returncode == 1 and sentence in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_pictures_reach_the_technicians_and_a_backup_comes_back(server: Server) -> None:
    drawn = server.command("backup", "--help")
    assert drawn.returncode == 0
    given = {key: str(value) for key, value in service("setup", server.environment)["environment"].items()}
    for words in (
        ["dermloop", "demo", "/tmp/demo", "--count", "3", "--size", "64"],
        ["dermloop", "ingest", "/tmp/demo"],
        ["dermloop", "review", "sync"],
    ):
        done = server.cook.run(server.ours, words, **given)
        assert done.returncode == 0, done.stderr
    status = server.cook.run(server.ours, ["dermloop", "review", "status", "--json"], **given)
    assert '"imported": 3' in status.stdout, status.stdout
    as_root = server.ours.user
    server.ours.user = "0"
    try:
        taken = server.command("backup")
        assert taken.returncode == 0, taken.stderr
        (archive,) = server.volumes["backups"].iterdir()
        checked = server.command("restore", f"/backups/{archive.name}", "--check")
        assert checked.returncode == 0 and "is whole" in checked.stdout, checked.stderr
        refused = server.command("restore", f"/backups/{archive.name}")
        assert refused.returncode == 1 and "nothing was changed" in refused.stderr
    finally:
        server.ours.user = as_root
