"""A backfill reads every picture of a bucket once, in shards that survive interruption, through a real container."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from builders_aws import BUCKET, IMAGE, moto, reset, signed_in, stack
from builders_endpoint import endpoint_here
from builders_sagemaker import SmallSagemaker, serving
from builders_serving import bundle, encoded, pixels
from typer.testing import CliRunner

from dermloop.aws import deploy as work
from dermloop.aws.backfill import ContainerReader, TransformReader, backfill
from dermloop.aws.cli import app
from dermloop.aws.clients import Aws
from dermloop.aws.settings import read_settings
from dermloop.aws.shards import Shards
from dermloop.errors import BackfillError
from ml_backend.objects import RESULT_SUFFIX

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")  # moto leaves out what it cannot make
PICTURES = {f"clinic/{number:02}.png": encoded(pixels(patches=())) for number in range(5)}
PICTURES |= {"clinic/lesion.png": encoded(pixels()), "clinic/broken.png": b"no picture"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backfill")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto() as address:
        reset(address)
        with signed_in(address):
            images = {"FunctionImage": IMAGE, "EndpointImage": f"{IMAGE}-serving"}
            work.deploy(Aws(), stack(), images)
        yield address


@pytest.fixture(scope="module")
def container(server: str, place: Path) -> Iterator[str]:
    bundle(place)
    with signed_in(server), endpoint_here(place, BUCKET) as address:
        yield address


@pytest.fixture
def small(server: str, container: str, tmp_path: Path) -> Iterator[SmallSagemaker]:
    with signed_in(server):
        s3 = Aws().client("s3")
        for row in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
            s3.delete_object(Bucket=BUCKET, Key=row["Key"])
        for key, body in {**PICTURES, "clinic/notes.txt": b"", "other/x.png": b""}.items():
            s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        found = SmallSagemaker(tmp_path, endpoint=container)
        with serving(found) as address, signed_in(server, AWS_ENDPOINT_URL_SAGEMAKER=address):
            yield found


def run(place: Path, *words: str, status: int = 0) -> dict[str, Any]:
    options = ["--home", str(place), "--shard", "3", "--json"]
    found = CliRunner().invoke(app, ["backfill", f"s3://{BUCKET}/clinic/", *words, *options], catch_exceptions=False)
    assert found.exit_code == status, found.output
    return dict(json.loads(found.stdout.splitlines()[-1]))


def result(key: str) -> dict[str, Any]:
    body = Aws().client("s3").get_object(Bucket=BUCKET, Key=key + RESULT_SUFFIX)["Body"].read()
    return dict(json.loads(body))


def test_a_transform_job_reads_every_picture_and_each_result_lies_beside_its_picture(
    small: SmallSagemaker, place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    done = run(place, "--out", str(out))
    assert (done["shards"], done["read"], done["unreadable"], done["pending"]) == (3, 6, 1, 0)
    assert len(result("clinic/lesion.png")["lesions"]) == 1 and not result("clinic/00.png")["lesions"]
    assert "JPEG or PNG" in result("clinic/broken.png")["error"]
    head = Aws().client("s3").head_object(Bucket=BUCKET, Key="clinic/lesion.png")
    assert result("clinic/lesion.png")["etag"] == head["ETag"]
    assert sorted(json.loads(line)["s3"] for line in out.read_text().splitlines()) == sorted(
        f"s3://{BUCKET}/{key}" for key in PICTURES
    )
    again = run(place)
    assert (again["done_before"], again["read"]) == (3, 0)
    transforms = [job for job in small.jobs.values() if job["operation"] == "CreateTransformJob"]
    assert len(transforms) == 1
    (model,) = (job for job in small.jobs.values() if job["operation"] == "CreateModel")
    assert model["PrimaryContainer"]["Image"] == f"{IMAGE}-serving"
    assert ":role/dermloop-ServingRole-" in model["ExecutionRoleArn"]


def test_a_container_at_an_address_does_the_same_without_sagemaker(
    small: SmallSagemaker, container: str, place: Path
) -> None:
    done = run(place, "--endpoint", container, "--name", "local")
    assert (done["read"], done["unreadable"], done["pending"]) == (6, 1, 0)
    assert small.jobs == {}
    fresh = run(place, "--endpoint", container, "--name", "second")
    assert (fresh["shards"], fresh["read"]) == (0, 0)
    assert run(place, "--endpoint", container, "--name", "third", "--all")["read"] == 6


class Dying:
    """A reader that dies after so many shards."""

    def __init__(self, inner: ContainerReader, after: int) -> None:
        self._inner = inner
        self._after = after

    def read(self, shards: Shards, names: Sequence[str]) -> None:
        self._inner.read(shards, names[: self._after])
        raise BackfillError("reader", "died", "to live", "Run it again.")


def test_an_interrupted_backfill_uses_what_was_answered_and_reads_only_the_rest(
    small: SmallSagemaker, container: str
) -> None:
    shards, rows = Shards(Aws(), BUCKET, "killed"), list[Any]()
    where, reader = (BUCKET, "clinic/"), ContainerReader([container], 2)
    with pytest.raises(BackfillError, match="died"):
        backfill(shards, where, Dying(reader, 2), 3, False, rows.append, print)
    asked: list[str] = []

    class Counting:
        def read(self, shards: Shards, names: Sequence[str]) -> None:
            asked.extend(names)
            reader.read(shards, names)

    done = backfill(shards, where, Counting(), 3, False, rows.append, print)
    assert asked == ["00002.jsonl"]
    assert (done.read, done.unreadable, done.pending) == (6, 1, 0)
    assert len(rows) == len(PICTURES)


def test_an_answer_that_another_try_may_better_keeps_its_shard_pending_and_the_others_are_kept(
    small: SmallSagemaker, container: str
) -> None:
    class Shaky:
        def read(self, shards: Shards, names: Sequence[str]) -> None:
            for name in names:
                rows = [{"s3": line["s3"], "error": "slow down", "again": True} for line in shards.asked(name)]
                rows[1:] = [{"s3": row["s3"], "lesions": []} for row in rows[1:]]
                shards.answer(name, [json.dumps(row).encode() for row in rows])

    shards, where = Shards(Aws(), BUCKET, "shaky"), (BUCKET, "clinic/")
    first = backfill(shards, where, Shaky(), 4, False, lambda row: None, print)
    assert (first.read, first.again, first.pending) == (5, 2, 2)
    second = backfill(shards, where, ContainerReader([container], 2), 4, False, lambda row: None, print)
    assert (second.read, second.unreadable, second.again, second.pending) == (6, 1, 0, 0)


def test_answers_that_do_not_fit_their_lines_are_refused_and_nothing_of_the_shard_is_written(
    small: SmallSagemaker,
) -> None:
    class Mixed:
        def read(self, shards: Shards, names: Sequence[str]) -> None:
            for name in names:
                lines = [json.dumps({"s3": line["s3"], "lesions": []}).encode() for line in shards.asked(name)]
                shards.answer(name, lines[::-1])

    with pytest.raises(BackfillError, match="in their order"):
        backfill(Shards(Aws(), BUCKET, "mixed"), (BUCKET, "clinic/"), Mixed(), 3, False, print, print)
    assert RESULT_SUFFIX not in str(Aws().client("s3").list_objects_v2(Bucket=BUCKET, Prefix="clinic/")["Contents"])


def test_a_job_that_fails_says_so_and_nobody_at_an_address_is_named(small: SmallSagemaker, place: Path) -> None:
    small.endpoint += "/nowhere"
    with pytest.raises(BackfillError, match=r"AlgorithmError.*shards that are done stay done"):
        run(place, "--name", "failing")
    with pytest.raises(BackfillError, match=r"http://127.0.0.1:9: ConnectError"):
        run(place, "--name", "deaf", "--endpoint", "http://127.0.0.1:9")


def test_what_is_no_address_of_pictures_is_refused(small: SmallSagemaker, container: str, place: Path) -> None:
    reader = TransformReader(Aws(), read_settings(), "model", print)
    with pytest.raises(BackfillError, match="no picture"):
        backfill(Shards(Aws(), BUCKET, "none"), (BUCKET, "empty/"), reader, 3, False, print, print)
    run(place, "--endpoint", container, "--name", "taken")
    with pytest.raises(BackfillError, match="Name this backfill otherwise"):
        backfill(Shards(Aws(), BUCKET, "taken"), (BUCKET, "other/"), reader, 3, False, print, print)
    wrong = CliRunner().invoke(app, ["backfill", "/tmp/pictures", "--endpoint", container])
    assert isinstance(wrong.exception, BackfillError) and "s3://bucket/prefix" in str(wrong.exception)
