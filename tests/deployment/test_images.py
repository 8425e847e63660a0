"""Every image is built, command by command, in a root of its own, and runs as Compose runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders_compose import example_environment, service
from builders_kitchen import Kitchen, Stage, kitchen, uv
from builders_serving import bundle, encoded, pixels
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]
OURS = ("serving", "review", "training", "label-studio")
ASK = """
import base64, json, urllib.request as u
login = base64.b64encode(b"label-studio:{password}").decode()
body = json.dumps({{"tasks": [{{"id": 1, "data": {{"image": "/data/local-files/?d=images/a.png"}}}}]}}).encode()
headers = {{"Authorization": "Basic " + login, "Content-Type": "application/json"}}
with u.urlopen(u.Request("http://127.0.0.1:9090/predict", body, headers), timeout=60) as answer:
    print(answer.read().decode())
"""

LEARN = """
import os
from training import networks
keras = networks.keras_library()
dense = keras.layers.Dense(4)(keras.ops.ones((1, 3)))
import torch
import ultralytics
linear = torch.nn.Linear(3, 4)(torch.ones(1, 3))
print(tuple(dense.shape), tuple(linear.shape), os.getuid())
"""


def steps(name: str, kind: str) -> list[str]:
    parsed = DockerfileParser(path=str(ROOT / "docker" / name / "Dockerfile")).structure
    return [step["value"] for step in parsed if step["instruction"] == kind]


@pytest.fixture
def cook(tmp_path: Path) -> Iterator[Kitchen]:
    with kitchen(tmp_path / "kitchen") as made:
        yield made


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, Path]:
    """The volumes of a server with a picture and a champion in them, belonging to the images' user."""
    places = {name: tmp_path / "volumes" / name for name in ("home", "images", "models", "model-cache")}
    for place in places.values():
        place.mkdir(parents=True)
    bundle(tmp_path / "made")
    shutil.copytree(tmp_path / "made" / "models", places["models"], dirs_exist_ok=True)
    (places["images"] / "a.png").write_bytes(encoded(pixels()))
    subprocess.run(["chown", "-R", "10001:10001", str(tmp_path / "volumes")], check=True)
    return places


def size_in_mb(cook: Kitchen, stage: Stage, folder: str) -> float:
    found = cook.run(stage, ["du", "-sk", folder])
    return int(found.stdout.split()[0]) / 1024


@pytest.mark.parametrize("name", OURS)
def test_an_image_is_pinned_without_rights_and_says_whether_it_is_well(name: str) -> None:
    images = [value.partition(" AS ")[0] for value in steps(name, "FROM")]
    known = {value.partition("=")[0]: value.partition("=")[2] for value in steps(name, "ARG")}
    stages = {value.partition(" AS ")[2] for value in steps(name, "FROM")}
    for image in images:
        for argument, default in known.items():
            image = image.replace(f"${{{argument}}}", default)
        tag = image.partition(":")[2]
        assert image in stages or (tag and "latest" not in tag and tag.count(".") == 2), image
    assert steps(name, "USER")[-1] not in ("root", "0")
    assert len(steps(name, "HEALTHCHECK")) == 1
    assert isinstance(json.loads(steps(name, "CMD")[-1]), list)


def test_versions_come_from_the_constraints_alone() -> None:
    installs = [run for name in OURS for run in steps(name, "RUN") if "uv pip install" in run]
    assert len(installs) == 5
    for run in installs:
        pinned = "-c constraints.txt --override overrides.txt" in run
        assert pinned or run.endswith("--no-deps ."), run
    listed = (ROOT / "docker" / "serving" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in listed if not line.startswith("#")]
    pins = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    assert set(names) <= pins


@pytest.mark.soak
def test_the_serving_image_answers_label_studio_with_a_read_only_root_and_no_rights(
    cook: Kitchen, volumes: dict[str, Path]
) -> None:
    stage = cook.build("docker/serving/Dockerfile")
    environment = example_environment()
    found = service("serving", environment)
    assert found["environment"]["DERMLOOP_ML_PORT"] in stage.ports
    process = cook.start(stage, found, volumes, hosts=("redis", "label-studio-web", "objects"))
    cook.healthy(stage, process)
    answer = cook.asked(ASK.format(password=environment["DERMLOOP_ML_BASIC_AUTH_PASSWORD"]))
    assert isinstance(answer, dict) and answer["model_version"].startswith("tiny-")
    assert answer["results"][0]["result"]
    written = cook.run(stage, ["sh", "-c", "touch /srv/dermloop/models/x /opt/dermloop/x /x; id -u"])
    assert written.stdout == "10001\n"
    assert written.stderr.count("Read-only file system") == 2 and written.stderr.count("cannot touch") == 3
    unwanted = "torch tensorflow label_studio_sdk sqlalchemy pandas cv2 scipy sklearn"
    code = f"import importlib.util as u; print([n for n in '{unwanted}'.split() if u.find_spec(n)])"
    assert cook.run(stage, ["python", "-c", code]).stdout.strip() == "[]"
    assert size_in_mb(cook, stage, "/opt/dermloop") < 400


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_training_image_computes_with_all_its_libraries_and_reaches_its_queue(cook: Kitchen) -> None:
    stage = cook.build("docker/training/Dockerfile", {"FLAVOUR": "cuda"})
    learnt = cook.run(stage, ["python", "-c", LEARN])
    assert learnt.stdout.splitlines()[-1:] == ["(1, 4) (1, 4) 10001"], learnt.stderr
    told = cook.run(stage, stage.health)
    assert told.returncode == 0, told.stderr


@pytest.mark.soak
def test_the_label_studio_image_gets_the_bulk_verdicts(cook: Kitchen) -> None:
    if not (ROOT / ".venv-label-studio").is_dir():
        pytest.skip("Label Studio is not installed (make label-studio)")
    stage = cook.build("docker/label-studio/Dockerfile")
    code = (
        "import label_studio, pathlib; print(pathlib.Path(label_studio.__file__).parent / 'data_manager' / 'actions')"
    )
    folder = cook.run(stage, ["python3", "-c", code]).stdout.strip()
    found = cook.run(stage, ["cat", f"{folder}/dermloop_review.py"]).stdout
    wanted = ROOT / "review_workflow" / "label_studio_actions" / "dermloop_review.py"
    assert found == wanted.read_text(encoding="utf-8")


INSTALLS = [(name, run) for name in ("serving", "training") for run in steps(name, "RUN") if "-c constraints" in run]


@pytest.mark.parametrize(("name", "run"), INSTALLS, ids=[name for name, _ in INSTALLS])
def test_what_an_image_installs_can_be_had_together(name: str, run: str, tmp_path: Path) -> None:
    words = run.partition("uv pip install ")[2].split()
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, str(tmp_path / "env")], check=True)
    at = words.index("--python")
    words[at + 1] = str(tmp_path / "env" / "bin" / "python")
    words = [word if word != "requirements.txt" else f"docker/{name}/requirements.txt" for word in words]
    line = [uv(), "pip", "install", "--dry-run", *words]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (" + torch==" in done.stderr) == (" + tensorflow==" in done.stderr) == (name == "training")
    assert (" + psycopg==" in done.stderr) == (name == "training")
