"""A Ground Truth job holds every picture and the taxonomy's classes; what its people drew comes back as a dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders_aws import BUCKET, IMAGE, moto, reset, signed_in, stack
from builders_sagemaker import SmallSagemaker, serving
from builders_serving import encoded, pixels
from typer.testing import CliRunner

from converters import taxonomy
from converters.cli import app as converters_app
from dermloop.aws import deploy as work
from dermloop.aws.cli import app
from dermloop.aws.clients import Aws
from dermloop.errors import AwsError, LabellingError

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")  # moto leaves out what it cannot make
TEAM = "arn:aws:sagemaker:eu-central-1:123456789012:workteam/private-crowd/dermatologists"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto() as address:
        reset(address)
        with signed_in(address):
            work.deploy(Aws(), stack(), {"FunctionImage": IMAGE})
        yield address


@pytest.fixture
def small(server: str, tmp_path: Path) -> Iterator[SmallSagemaker]:
    with signed_in(server):
        found = SmallSagemaker(tmp_path)
        with serving(found) as address, signed_in(server, AWS_ENDPOINT_URL_SAGEMAKER=address):
            yield found


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(pixels()))
    (folder / "b.png").write_bytes(encoded(pixels(patches=())))
    (folder / "table.csv").write_text("file\n")
    return folder


def run(*words: str, status: int = 0) -> dict[str, Any]:
    found = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert found.exit_code == status, found.output
    return dict(json.loads(found.stdout))


def label(images: Path, name: str) -> dict[str, Any]:
    return run("label", name, "--workteam", TEAM, "--images", str(images), "--readers", "3")


def drawn(small: SmallSagemaker, name: str, class_name: str) -> None:
    """What Ground Truth leaves when one person drew a box on a.png, none on b.png."""
    metadata = {"class-map": {"0": class_name}, "type": "groundtruth/object-detection", "human-annotated": "yes",
                "creation-date": "2026-01-01T00:00:00.000000", "job-name": f"labeling-job/{name}"}  # fmt: skip
    size = [{"width": 160, "height": 120, "depth": 3}]
    box = {"class_id": 0, "left": 20, "top": 30, "width": 40, "height": 40}
    lines = []
    for key, boxes in (("a.png", [box]), ("b.png", [])):
        scores = [{"confidence": 0.9}] * len(boxes)
        lines.append({
            "source-ref": f"s3://{BUCKET}/labelling/{name}/images/{key}",
            "lesions": {"image_size": size, "annotations": boxes},
            "lesions-metadata": {**metadata, "objects": scores},
        })  # fmt: skip
    address = f"s3://{BUCKET}/labelling/{name}/output/{name}/manifests/output/output.manifest"
    small._put(address, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    done = {"LabelingJobStatus": "Completed", "LabelingJobOutput": {"OutputDatasetS3Uri": address}}
    small.jobs[name] |= done


def test_a_job_holds_every_picture_the_classes_and_a_private_team(small: SmallSagemaker, images: Path) -> None:
    assert label(images, "round-1") == {"job": "round-1", "images": 2}
    job = small.jobs["round-1"]
    manifest = small._get(job["InputConfig"]["DataSource"]["S3DataSource"]["ManifestS3Uri"]).splitlines()
    addresses = [json.loads(line)["source-ref"] for line in manifest]
    assert addresses == [f"s3://{BUCKET}/labelling/round-1/images/{name}" for name in ("a.png", "b.png")]
    assert small._get(addresses[0]) == (images / "a.png").read_bytes()
    classes = [row["label"] for row in json.loads(small._get(job["LabelCategoryConfigS3Uri"]))["labels"]]
    assert classes == [diagnosis.name for diagnosis in taxonomy.read().diagnoses]
    human = job["HumanTaskConfig"]
    assert human["WorkteamArn"] == TEAM and human["NumberOfHumanWorkersPerDataObject"] == 3
    assert human["PreHumanTaskLambdaArn"] == "arn:aws:lambda:eu-central-1:203001061592:function:PRE-BoundingBox"
    page = small._get(human["UiConfig"]["UiTemplateS3Uri"]).decode()
    assert "crowd-bounding-box" in page and "grant_read_access" in page and "no diagnosis" in page
    assert ":role/dermloop-LabellingRole-" in job["RoleArn"] and "DataAttributes" not in job["InputConfig"]


def test_what_was_drawn_comes_back_as_a_folder_that_converts(
    small: SmallSagemaker, images: Path, tmp_path: Path
) -> None:
    label(images, "round-2")
    drawn(small, "round-2", taxonomy.read().diagnoses[0].name)
    out = tmp_path / "collected"
    done = run("collect-labels", "round-2", "--out", str(out))
    assert (done["images"], done["lesions"], done["refused"]) == (2, 1, [])
    words = ["convert", str(out / "output.manifest"), str(tmp_path / "coco"), "--images", str(out / "images")]
    found = CliRunner().invoke(converters_app, [*words, "--from", "ground-truth-boxes", "--to", "coco"])
    assert found.exit_code == 0, found.output


def test_a_class_that_the_taxonomy_does_not_know_is_refused_by_name(
    small: SmallSagemaker, images: Path, tmp_path: Path
) -> None:
    label(images, "round-3")
    drawn(small, "round-3", "freckle")
    done = run("collect-labels", "round-3", "--out", str(tmp_path / "collected"), status=1)
    assert done["images"] == 1 and "freckle" in done["refused"][0]


def test_a_job_that_goes_on_says_how_far_it_is_and_one_that_is_not_there_says_so(
    small: SmallSagemaker, images: Path, tmp_path: Path
) -> None:
    label(images, "round-4")
    small.jobs["round-4"] |= {"LabelingJobStatus": "InProgress", "LabelCounters": {"TotalLabeled": 1, "Unlabeled": 1}}
    with pytest.raises(LabellingError, match=r"InProgress, 1 labelled, 1 to go.*later"):
        run("collect-labels", "round-4", "--out", str(tmp_path / "out"))
    with pytest.raises(LabellingError, match="not there"):
        run("collect-labels", "gone", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_pictures_and_a_region_without_ground_truth_are_refused(
    small: SmallSagemaker, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(LabellingError, match="JPEG or PNG"):
        label(tmp_path / "nothing", "round-5")
    with pytest.raises(AwsError, match="Run `dermloop aws deploy`"):
        run("label", "r", "--workteam", TEAM, "--images", str(images), "--region", "sa-east-1")
    assert small.jobs == {}
