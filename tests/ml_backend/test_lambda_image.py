"""What docker/lambda/Dockerfile puts into the image is enough to run both handlers, and no more is asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

from builders_serving import bundle, encoded, pixels
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
HOUSE = {"converters", "dermloop", "ml_backend", "review_workflow", "telemetry", "training"}
ASK = """
    import base64, importlib.abc, json, sys
    root, absent, picture = sys.argv[1], set(sys.argv[2].split()), sys.argv[3]
    class Border(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in absent:
                raise ModuleNotFoundError(f"{name} is not in the image", name=name)
    sys.meta_path.insert(0, Border())
    sys.path.insert(0, root)
    from ml_backend import lambda_handlers
    body = open(picture, "rb").read()
    parts = [b"--x", b'Content-Disposition: form-data; name="image"; filename="a.png"', b"", body, b"--x--", b""]
    event = {
        "rawPath": "/predict",
        "requestContext": {"http": {"method": "POST"}},
        "headers": {"content-type": "multipart/form-data; boundary=x", "host": "localhost"},
        "body": base64.b64encode(b"\\r\\n".join(parts)).decode(),
        "isBase64Encoded": True,
    }
    told = lambda_handlers.on_request(event)
    assert lambda_handlers.on_object_created({"Records": []}) == {"batchItemFailures": []}
    lambda_handlers.application().extensions["dermloop"].close()
    print(json.dumps([told["statusCode"], base64.b64decode(told["body"]).decode()]))
"""


def test_the_handlers_run_on_what_the_image_holds(tmp_path: Path) -> None:
    values = [step["value"] for step in dockerfile() if step["instruction"] == "COPY"]
    copied = [value.split()[0] for value in values if "LAMBDA_TASK_ROOT" in value and "MODELS" not in value]
    for package in copied:
        shutil.copytree(ROOT / package, tmp_path / "task" / package, ignore=shutil.ignore_patterns("__pycache__"))
    bundle(tmp_path)
    (tmp_path / "a.png").write_bytes(encoded(pixels()))
    installed = {one.name for one in metadata.distributions()}
    absent = " ".join((modules(installed) | HOUSE) - modules(closure()) - set(copied))
    command = [sys.executable, "-c", textwrap.dedent(ASK), str(tmp_path / "task"), absent, str(tmp_path / "a.png")]
    environment = {**os.environ, "DERMLOOP_ML_HOME": str(tmp_path), "PYTHONSAFEPATH": "1"}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    status, answer = json.loads(found.stdout)
    assert status == 200 and json.loads(answer)["model_version"].startswith("tiny-")


def test_each_command_of_the_image_is_a_handler() -> None:
    command = json.loads(next(step["value"] for step in dockerfile() if step["instruction"] == "CMD"))
    module, _, name = command[0].rpartition(".")
    assert callable(getattr(__import__(module, fromlist=[name]), name))


def dockerfile() -> list[dict[str, str]]:
    parsed: list[dict[str, str]] = DockerfileParser(path=str(ROOT / "docker" / "lambda" / "Dockerfile")).structure
    return parsed


def closure() -> set[str]:
    """The distributions that installing the image's requirements brings; what overrides.txt takes away is not here."""
    lines = (ROOT / "docker" / "serving" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    waiting, found = [line for line in lines if line and not line.startswith("#")], set()
    while waiting:
        name = Requirement(waiting.pop()).name.lower().replace("_", "-")
        if name not in found:
            found.add(name)
            needs = map(Requirement, requires(name))
            waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def requires(distribution: str) -> list[str]:
    try:
        return metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []


def modules(distributions: set[str]) -> set[str]:
    """The top-level modules of distributions."""
    wanted = {name.lower().replace("_", "-") for name in distributions}
    known = metadata.packages_distributions().items()
    return {module for module, names in known if {name.lower().replace("_", "-") for name in names} & wanted}
