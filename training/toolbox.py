"""Tools that no Python extra brings, fetched once into dermloop's cache: npm packages, TensorFlow.js' converter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.errors import ToolError

_REQUIREMENTS = Path(__file__).with_name("tfjs-requirements.txt")
_MARK = "installed"


@dataclass(frozen=True, slots=True)
class Package:
    """A package of npm's registry at a fixed version, and the files of it that a page needs."""

    name: str
    version: str
    files: tuple[str, ...]


ONNXRUNTIME_WEB = Package(
    "onnxruntime-web",
    "1.30.0",
    ("dist/ort.wasm.min.js", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm"),
)
TENSORFLOW_JS = (
    Package("@tensorflow/tfjs", "4.22.0", ("dist/tf.min.js",)),
    Package(
        "@tensorflow/tfjs-backend-wasm",
        "4.22.0",
        ("dist/tf-backend-wasm.min.js", "dist/tfjs-backend-wasm.wasm", "dist/tfjs-backend-wasm-simd.wasm"),
    ),
)


def tools_folder() -> Path:
    """Where fetched tools are kept: `DERMLOOP_CACHE/tools`, else below the user's cache folder."""
    named = os.environ.get("DERMLOOP_CACHE")
    return (Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "dermloop") / "tools"


def npm_files(package: Package, tools: Path) -> tuple[Path, ...]:
    """The files of a package, fetched by npm where they are not in the cache yet; raises ToolError without npm."""
    folder = tools / f"{package.name.replace('/', '-').lstrip('@')}-{package.version}"
    places = tuple(folder / Path(name).name for name in package.files)
    if all(place.is_file() for place in places):
        return places
    npm = shutil.which("npm")
    if npm is None:
        raise ToolError("npm", "not there", "Node's package manager", "Install it (Debian: apt-get install npm).")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        name = f"{package.name}@{package.version}"
        _run((npm, "pack", name, "--silent", "--ignore-scripts", "--pack-destination", work), name)
        [archive] = Path(work).glob("*.tgz")
        with tarfile.open(archive) as packed:
            for inside, place in zip(package.files, places, strict=True):
                stream = packed.extractfile(f"package/{inside}")
                if stream is None:
                    raise ToolError(name, inside, "a file of the package", "Use another version.")
                draft = Path(work) / place.name
                draft.write_bytes(stream.read())
                draft.replace(place)
    return places


def tfjs_converter(tools: Path) -> Path:
    """The converter to TensorFlow.js in an environment of its own, made by uv the first time (2.7 GB, a minute).

    Raises ToolError with the installer's last words.
    """
    folder = tools / "tfjs-converter"
    program = folder / "bin" / "tensorflowjs_converter"
    if (folder / _MARK).is_file() and (folder / _MARK).read_text() == _REQUIREMENTS.read_text():
        return program
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise ToolError("uv", "not there", "the installer of Python packages", "Run `pip install uv`.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run((uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)), "TensorFlow.js' converter")
    install = (uv, "pip", "install", "--quiet", "--no-deps", "--python", str(folder / "bin" / "python"))
    _run((*install, "-r", str(_REQUIREMENTS)), "TensorFlow.js' converter")
    (folder / _MARK).write_text(_REQUIREMENTS.read_text())
    return program


def convert_to_tfjs(saved_model: Path, target: Path, tools: Path) -> Path:
    """A TensorFlow.js graph model (`model.json` and its weights) of a SavedModel; raises ToolError where it fails."""
    program = tfjs_converter(tools)
    options = ("--input_format=tf_saved_model", "--saved_model_tags=serve", "--signature_name=serving_default")
    with tempfile.TemporaryDirectory() as work:
        _run((str(program), *options, str(saved_model), work), "TensorFlow.js' converter")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(work, target)
    return target


def chromium() -> str:
    """The path of Chromium or Chrome; raises ToolError where neither is there."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise ToolError("Chromium", "not there", "a browser", "Install it (Debian: apt-get install chromium).")


def _run(command: Sequence[str], item: str) -> None:
    environment = {"UV_SYSTEM_CERTS": "true", **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " / ".join(line for line in (done.stderr or done.stdout).splitlines()[-4:] if line.strip())
        raise ToolError(item, words[:400], "an installer or converter that ends well", "Check network and disk.")
