"""Conversions from and to S3: what a killed run leaves is taken up or cleared, and any other end leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from builders_converters import an_item
from builders_formats import converted, with_bytes
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from converters import output, storage
from converters.cli import app
from converters.errors import DatasetError
from converters.formats.table import find
from converters.workplace import working_folder

ROOT = Path(__file__).parents[2]
DIES = "import os; from converters import storage; storage.put = lambda *given: os._exit(9); "
WAITS = (
    "import time; from converters import storage; "
    "storage.put = lambda *given: (print('sending', flush=True), time.sleep(60)); "
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    found = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    found.start()
    host, port = found.get_host_and_port()
    yield f"http://{host}:{port}"
    found.stop()


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket named `derm`, and a folder for temporary files of the test's own."""
    (tmp_path / "tmp").mkdir()
    values = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**values, "AWS_ENDPOINT_URL": server, "TMPDIR": str(tmp_path / "tmp")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)
    found = boto3.resource("s3").Bucket("derm")
    found.create()
    yield found
    found.objects.delete()
    found.delete()


def left(tmp_path: Path) -> list[str]:
    """What lies in the working folders."""
    return sorted(path.name for path in (tmp_path / "tmp").glob("dermloop-*/*"))


def begun(script: str, *arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", f"{script} from converters.cli import app; app()", *map(str, arguments)]
    return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)


def ended(script: str, *arguments: object) -> int:
    with begun(script, *arguments) as process:
        return process.wait(60)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def a_yolo(folder: Path) -> Path:
    items = with_bytes(tuple(an_item(f"{number}.png") for number in range(3)), folder / "in")
    converted(items, find("yolo"), folder / "yolo")
    return folder / "yolo"


def test_a_run_killed_before_it_sent_is_taken_up_and_leaves_nothing(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("convert", a_yolo(tmp_path), "s3://derm/sets/coco", "--to", "coco")
    assert ended(DIES, *arguments) == 9
    assert len(left(tmp_path)) == 2 and not list(bucket.objects.all())

    def no_picture(*given: object) -> bytes:
        raise AssertionError("the pictures were there already")

    monkeypatch.setattr(output, "exported", no_picture)
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert left(tmp_path) == []
    assert "sets/coco/_COMPLETE" in {found.key for found in bucket.objects.all()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_told_to_end_leaves_nothing(bucket: Any, tmp_path: Path, number: int) -> None:
    with begun(WAITS, "convert", a_yolo(tmp_path), "s3://derm/sets/coco", "--to", "coco") as process:
        assert process.stdout is not None and process.stdout.readline() == "sending\n"
        process.send_signal(number)
        assert process.wait(60) not in (0, 9)
    assert left(tmp_path) == []


def test_what_is_there_is_not_brought_again_and_what_is_gone_goes(bucket: Any, tmp_path: Path) -> None:
    for key in ("set/a.txt", "set/b.txt", "set2/c.txt"):
        bucket.put_object(Key=key, Body=key.encode())
    folder = tmp_path / "copy"
    assert storage.fetch("s3://derm/set", folder) == folder
    before = (folder / "a.txt").stat().st_ino
    (folder / "b.txt").write_text("half")
    (folder / "b.txt.8f3E").write_text("half of a download")
    storage.fetch("s3://derm/set", folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.txt": "set/a.txt", "b.txt": "set/b.txt"}
    assert (folder / "a.txt").stat().st_ino == before


def test_a_killed_run_of_another_conversion_is_cleared_and_a_running_one_is_not(bucket: Any, tmp_path: Path) -> None:
    assert ended(DIES, "convert", a_yolo(tmp_path), "s3://derm/sets/coco", "--to", "coco") == 9
    with working_folder("mine") as mine:
        (mine / "kept").touch()
        assert run("dataset", "inspect", "s3://derm/nothing").exit_code == 1
        assert left(tmp_path) == [mine.name, f"{mine.name}.lock"] and (mine / "kept").is_file()
        with pytest.raises(DatasetError, match="another run"), working_folder("mine"):
            pass
    assert left(tmp_path) == []


def test_somebody_elses_folder_is_not_used(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "tmp" / f"dermloop-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(DatasetError, match="TMPDIR"), working_folder("mine"):
        pass
