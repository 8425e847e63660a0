"""A backup of running programs, given back to an empty place: everything is there, and the audit log verifies."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import boto3
import orjson
import pytest
from builders_home import FullHome, a_full_home
from builders_postgresql import PostgreSQL
from builders_review import an_image
from moto.server import ThreadedMotoServer

from dermloop.backup import Places, restore, take
from dermloop.backup.restoring import check
from dermloop.errors import BackupError
from dermloop.home import Home
from ml_backend.jobs import JobQueue

ROOT = Path(__file__).parents[2]
AWS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def silent(sentence: str) -> None:
    assert sentence


@pytest.fixture
def full(tmp_path: Path) -> FullHome:
    return a_full_home(tmp_path / "home")


@pytest.fixture
def empty(tmp_path: Path) -> Places:
    return Places.of(Home(tmp_path / "other"), {})


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def entries(places: Places) -> list[tuple[int, str]]:
    made = FullHome(places.home)
    service = made.review()
    try:
        assert service.verify_audit() == ()
        return [(entry.seq, entry.digest) for entry in service.history()]
    finally:
        service.close()


@contextmanager
def somebody_working(full: FullHome) -> Iterator[None]:
    """Registers pictures one after the other and appends to a log, from before the block until after it."""
    stop, begun = threading.Event(), threading.Event()

    def work() -> None:
        service, number = full.review(), 1000
        while not stop.is_set():
            record = an_image(number)
            (full.home.images / f"{record.image_id}.jpg").write_bytes(os.urandom(20_000))
            service.register([record])
            with (full.home.models / "promotions.jsonl").open("ab") as log:
                log.write(b'{"version": "' + str(number).encode() + b'"}\n')
            number += 1
            begun.set()
        service.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(30)
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_everything_comes_back_to_an_empty_place(full: FullHome, empty: Places, tmp_path: Path) -> None:
    report = take(full.places, tmp_path, silent)
    back = restore(empty, report.archive, False, silent)
    assert back.audit_entries == len(entries(full.places)) > 0
    assert entries(empty) == entries(full.places)
    assert FullHome(empty.home).files() == full.files()
    assert rows(empty.label_studio_data / "label_studio.sqlite3", "SELECT * FROM task") == rows(
        full.home.label_studio / "label_studio.sqlite3", "SELECT * FROM task"
    )
    queue = JobQueue.open(empty.home.jobs_db)
    assert [job.reason for job in queue.jobs()] == ["approved 20"]
    queue.close()
    assert (empty.home.root / "secrets.toml").stat().st_mode & 0o777 == 0o600
    assert report.archive.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in empty.home.root.iterdir() if path.name.startswith(".")) == []


def test_a_backup_of_working_programs_is_of_one_moment(full: FullHome, empty: Places, tmp_path: Path) -> None:
    with somebody_working(full):
        report = take(full.places, tmp_path, silent)
    restore(empty, report.archive, False, silent)
    seen = entries(empty)
    assert seen == entries(full.places)[: len(seen)]
    service = FullHome(empty.home).review()
    registered = {row[0] for row in rows(empty.home.review_db, "SELECT image_id FROM images")}
    service.close()
    assert registered <= {path.stem for path in empty.home.images.iterdir()}
    log = (empty.home.models / "promotions.jsonl").read_bytes()
    assert log.endswith(b"\n") and all(orjson.loads(line) for line in log.splitlines())


def test_a_server_on_postgresql_comes_back_to_another_one(server: PostgreSQL, tmp_path: Path) -> None:
    studio, other_studio, other = server.new_database(), server.new_database(), server.new_database()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMLOOP_REVIEW_DATABASE_URL", server.new_database())
        full = a_full_home(tmp_path / "home", environment={"DERMLOOP_BACKUP_LABEL_STUDIO_DATABASE": studio})
        run_sql(studio, "CREATE TABLE task (id serial, data text); INSERT INTO task (data) VALUES ('one'), ('two')")
        with somebody_working(full):
            report = take(full.places, tmp_path, silent)
        before = entries(full.places)
        patch.setenv("DERMLOOP_REVIEW_DATABASE_URL", other)
        empty = Places.of(Home(tmp_path / "other"), {"DERMLOOP_BACKUP_LABEL_STUDIO_DATABASE": other_studio})
        restore(empty, report.archive, False, silent)
        seen = entries(empty)
        assert seen == before[: len(seen)] and len(seen) > 6
        assert run_sql(other_studio, "SELECT data FROM task ORDER BY id") == [("one",), ("two",)]
        with pytest.raises(BackupError, match=r"holds .* already; expected an empty folder"):
            restore(empty, report.archive, False, silent)
        restore(empty, report.archive, True, silent)
        assert entries(empty) == seen
        with somebody_using(other_studio), pytest.raises(BackupError, match="Stop the programs that use it"):
            restore(empty, report.archive, True, silent)
        assert run_sql(other_studio, "SELECT count(*) FROM task") == [(2,)]


@contextmanager
def somebody_using(url: str) -> Iterator[None]:
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE task IN ROW EXCLUSIVE MODE")
        yield
        connection.rollback()


def run_sql(url: str, query: str) -> list[tuple[object, ...]]:
    import psycopg

    with psycopg.connect(url) as connection:
        found = connection.execute(query)  # type: ignore[call-overload]
        return list(found.fetchall()) if found.description else []


def test_objects_come_back_with_type_and_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    try:
        host, port = store.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        monkeypatch.setenv("DERMLOOP_ML_S3_ENDPOINT", endpoint)
        full = a_full_home(tmp_path / "home", environment={"DERMLOOP_BACKUP_BUCKETS": "pictures"})
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="pictures")
        client.put_object(
            Bucket="pictures", Key="a/ü b.jpg", Body=b"jpeg", ContentType="image/jpeg", Metadata={"patient": "7"}
        )
        report = take(full.places, tmp_path, silent)
        client.delete_object(Bucket="pictures", Key="a/ü b.jpg")
        empty = Places.of(Home(tmp_path / "other"), full.environment)
        restore(empty, report.archive, False, silent)
        found = client.get_object(Bucket="pictures", Key="a/ü b.jpg")
        assert (found["Body"].read(), found["ContentType"], found["Metadata"]) == (
            b"jpeg",
            "image/jpeg",
            {"patient": "7"},
        )
        client.close()
        absent = Places.of(full.home, {"DERMLOOP_BACKUP_BUCKETS": "nowhere"})
        with pytest.raises(BackupError, match=r"s3://nowhere/: NoSuchBucket.*Check key, bucket and credentials"):
            take(absent, tmp_path / "never.tar", silent)
    finally:
        store.stop()
    with pytest.raises(BackupError, match="Check the endpoint"):
        take(full.places, tmp_path / "never.tar", silent)
    assert not (tmp_path / "never.tar").exists()


def test_a_killed_backup_leaves_no_archive_and_the_next_one_clears_up(full: FullHome, tmp_path: Path) -> None:
    with (full.home.root / "runs" / "checkpoint.bin").open("wb") as stream:
        stream.truncate(1 << 30)
    target = tmp_path / "backups"
    target.mkdir()
    command = [sys.executable, "-m", "dermloop", "backup", str(target), "--home", str(full.home.root)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not [path for path in target.iterdir() if path.stat().st_size > 100_000]:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.suffix for path in target.iterdir()] == [".partial"]
    (full.home.root / "runs" / "checkpoint.bin").unlink()
    report = take(full.places, target, silent)
    assert list(target.iterdir()) == [report.archive]
    check(report.archive)


@pytest.mark.soak
def test_a_killed_restore_is_run_again_to_its_end(full: FullHome, tmp_path: Path) -> None:
    with (full.home.root / "runs" / "checkpoint.bin").open("wb") as stream:
        stream.truncate(300 << 20)
    report = take(full.places, tmp_path, silent)
    other = tmp_path / "other"
    command = [sys.executable, "-m", "dermloop", "restore", str(report.archive), "--home", str(other)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(other.rglob("*.restoring")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (other / "review.db").exists()
    places = Places.of(Home(other), {})
    restore(places, report.archive, False, silent)
    assert entries(places) == entries(full.places)
    assert FullHome(places.home).files() == full.files()


def test_nothing_is_replaced_unless_asked_for(full: FullHome, tmp_path: Path) -> None:
    report = take(full.places, tmp_path, silent)
    (full.home.root / "policy.toml").write_text("# newer\n")
    before = full.files()
    with pytest.raises(BackupError, match=r"already; expected an empty folder.*add --replace; nothing was changed"):
        restore(full.places, report.archive, False, silent)
    assert full.files() == before
    restore(full.places, report.archive, True, silent)
    assert (full.home.root / "policy.toml").read_text() != "# newer\n"
    assert not list(full.home.root.rglob(".before-restore"))
    with pytest.raises(BackupError, match="there already; expected a new file"):
        take(full.places, report.archive, silent)


def altered(archive: Path, change: str) -> Path:
    """A copy of an archive with one thing wrong."""
    made = archive.with_name(f"{change}.tar")
    with tarfile.open(archive) as source, tarfile.open(made, "w") as sink:
        for member in source.getmembers():
            stream = source.extractfile(member)
            content = stream.read() if stream else b""
            if change == "bytes" and member.name == "home/policy.toml":
                content = content.replace(b"0.5", b"0.9")
            if change == "newer" and member.name == "manifest.json":
                content = content.replace(b'"format": 1', b'"format": 2')
            if change == "escape" and member.name == "manifest.json":
                content = content.replace(b"home/policy.toml", b"home/../../up.toml")
            if change == "missing" and member.name == "home/policy.toml":
                continue
            member.size = len(content)
            sink.addfile(member, io.BytesIO(content))
    if change == "truncated":
        made.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    if change == "foreign":
        made.write_bytes(b"PK not a tar")
    return made


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("bytes", r"home/policy.toml: other bytes; expected what was written\. Use another copy"),
        ("missing", r"home/policy.toml: missing; expected every part"),
        ("newer", r"format 2; expected format 1\. Restore it with the dermloop that wrote it"),
        ("escape", r"up.toml; expected paths inside the archive\. Do not restore it"),
        ("truncated", r"expected a (complete|readable) archive"),
        ("foreign", r"expected a readable archive"),
    ],
)
def test_a_damaged_archive_changes_nothing(change: str, sentence: str, full: FullHome, empty: Places) -> None:
    report = take(full.places, full.home.root.parent, silent)
    with pytest.raises(BackupError, match=sentence):
        restore(empty, altered(report.archive, change), False, silent)
    assert not empty.home.root.exists()


def test_an_archive_whose_audit_log_was_rewritten_is_named_and_what_was_there_is_kept(
    full: FullHome, tmp_path: Path
) -> None:
    forged = a_full_home(tmp_path / "forged")
    with closing(sqlite3.connect(forged.home.review_db)) as connection, connection:
        connection.execute("DROP TRIGGER audit_no_update")
        connection.execute("UPDATE audit SET reason = 'nothing to see' WHERE seq = 2")
    report = take(forged.places, tmp_path, silent)
    with pytest.raises(BackupError, match=r"audit log: entry 2: was altered.*what was there lies in .before-restore"):
        restore(full.places, report.archive, True, silent)
    kept = full.home.root / ".before-restore"
    assert (kept / "policy.toml").is_file() and (kept / "review.db").is_file()


def test_another_kind_of_database_is_refused_before_anything_is_written(
    full: FullHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = take(full.places, tmp_path, silent)
    monkeypatch.setenv("DERMLOOP_REVIEW_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/review")
    other = Places.of(Home(tmp_path / "other"), {})
    with pytest.raises(BackupError, match=r"review.sqlite3; expected databases/review.pgdump\. Set the database's URL"):
        restore(other, report.archive, False, silent)
    with pytest.raises(BackupError, match="a server that lets us in"):
        take(other.__class__.of(full.home, {}), tmp_path / "never.tar", silent)
    assert not other.home.root.exists() and not (tmp_path / "never.tar").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(full: FullHome, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="No such file or directory; expected a place to write to"):
        take(full.places, tmp_path / "nowhere" / "a.tar", silent)
    with pytest.raises(BackupError, match="no folder; expected a home of dermloop"):
        take(Places.of(Home(tmp_path / "none"), {}), tmp_path, silent)
